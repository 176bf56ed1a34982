"""`distillkit push`: a run's weights and their card on the Hugging Face hub, or what would go there."""

from pathlib import Path

from distillkit.cli.reporting import OUT
from distillkit.files.os_errors import explain_os_errors
from distillkit.publishing.push import Push, Wish, licence_on_hub, prepare_push, upload


def push_and_report(wish: Wish, *, dry_run: bool, quiet: bool = False) -> None:
    """Upload, and say where it is; with `dry_run`, show the files and the card. Raises InputError."""
    with explain_os_errors():
        push = prepare_push(wish, licence_on_hub)
        if dry_run or not quiet:
            _show_files(push)
        if dry_run:
            OUT.print(f"\n{push.card}", end="")
            return
        address = upload(push)
    OUT.print(f"{wish.repo}: {address}")


def _show_files(push: Push) -> None:
    wish = push.wish
    where = f"{wish.repo}{f' ({wish.revision})' if wish.revision else ''}{', private' if wish.private else ''}"
    OUT.print(f"{where}: weights after step {push.step}")
    width = max(len(file.name) for file in push.files)
    OUT.print(f"  {'file':<{width}}  {'bytes':>14}  from")
    for file in push.files:
        of = str(file.content) if isinstance(file.content, Path) else "made for the hub"
        OUT.print(f"  {file.name:<{width}}  {file.size:>14,}  {of}")
