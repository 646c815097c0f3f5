"""What `--help` prints."""

from __future__ import annotations

from pathlib import Path

from sweep.composition import groups, purpose
from sweep.overrides import ADDED

_COMMANDS = (
    ("sweep", "search, confirm, analyse, publish; run again, and it goes on where it stopped"),
    ("sweep.audit", "whether the data is fit to train on; the sweep begins with it too"),
    ("sweep.status", "where a sweep stands, from another terminal"),
    ("sweep.report", "its report, finished or not, as one HTML file"),
    ("sweep.train", "production training with a found configuration, +best=NAME"),
    ("sweep.init", "a folder with an experiment of your own to fill in: python -m sweep.init [FOLDER]"),
)


def usage(name: str, working_directory: Path | None = None) -> str:
    """How to type the command `name`, all commands, the experiments, the choices of each group, examples."""
    known = groups(working_directory)
    chosen = [
        f"  {group:<18} {', '.join(sorted(files))}"
        for group, files in sorted(known.items())
        if group not in ADDED
    ]
    best = ", ".join(known["best"]) or "none yet: a sweep writes them"
    return "\n".join(
        [
            f"python -m {name} +experiment=NAME [KEY=VALUE ...]",
            "",
            "Commands",
            *(f"  {command:<18} {use}" for command, use in _COMMANDS),
            "",
            "Experiments",
            *(f"  {experiment:<18} {purpose(file)}" for experiment, file in known["experiment"].items()),
            "",
            f"Found configurations: {best}",
            "",
            "Groups: GROUP=NAME chooses a file, GROUP.KEY=VALUE changes one of its keys",
            *chosen,
            "",
            "Examples",
            "  python -m sweep +experiment=smoke",
            "  python -m sweep +experiment=support_bot name=tickets data=own data.path=tickets.jsonl",
            "  python -m sweep +experiment=support_bot 'space.lora_rank=choice(8, 16)' ~space.weight_decay",
            "  python -m sweep +experiment=support_bot --cfg job",
            "",
        ]
    )
