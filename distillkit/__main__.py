"""`python -m distillkit`."""

from distillkit.cli.main import main

if __name__ == "__main__":
    main()
