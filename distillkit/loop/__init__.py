"""The loop of a run: windows of sampling and scoring, training, evaluation, ledger, guards."""
