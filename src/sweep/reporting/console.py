"""The lines that a command prints beside its tables."""

from __future__ import annotations

from rich.console import Console

_INDENT = 9


class Transcript:
    """One line per stage, indented lines below it. Texts are printed as they are: no markup, no wrapping."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)

    def title(self, command: str, subject: str) -> None:
        self.console.print(f"[bold]{command}[/bold]  ", end="")
        self.say(subject)

    def stage(self, name: str, text: str) -> None:
        self.console.print(f"[bold cyan]{name:<{_INDENT}}[/bold cyan]", end="")
        self.say(text)

    def more(self, text: str) -> None:
        self.say(" " * _INDENT + text)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)
