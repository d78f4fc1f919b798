"""nnictl configs with each key wrong, and trials that were started wrongly."""

from __future__ import annotations

from .case import REMOVED, Case, keys, settings
from .folder import CONFIG, RECIPE, RETRAIN

_COMMAND = "nni-proxyless trial --recipe"
_CHOICE = {"_type": "choice", "_value": [0.8, 0.9]}

_KEYS = keys(
    "run config.yml",
    "config.yml",
    CONFIG,
    [
        ("trialCommand", REMOVED, "None", "'trialCommand' must be a string"),
        ("trialCommand", ["nni-proxyless", "trial"], "['nni-proxyless', 'trial']", "'trialCommand' must be a string"),
        ("trialCommand", "", "''", "must be 'nni-proxyless trial --recipe FILE'"),
        ("trialCommand", "python train.py", "'python train.py'", "must be 'nni-proxyless trial --recipe FILE'"),
        ("trialCommand", "nni-proxyless trial", "'nni-proxyless trial'", "must be 'nni-proxyless trial --recipe FILE'"),
        ("trialCommand", _COMMAND, f"'{_COMMAND}'", "must be 'nni-proxyless trial --recipe FILE'"),
        ("trialCommand", f"{_COMMAND} nowhere.yml", "nowhere.yml", "No such file"),
        ("trialCommand", f"{_COMMAND} 'recipe.yml", "'recipe.yml", "quotation"),
        ("trialCommand", f"{_COMMAND} empty", "empty", "directory"),
        ("trialCommand", f"{_COMMAND} space.yml", "space.yml", "unknown key"),
        ("trialCommand", f"{_COMMAND} retrain.yml", "'architecture'", "unknown key"),
        ("trialCommand", f"{_COMMAND} recipe.yml --task serach", "'serach'", "did you mean 'search'?"),
        ("trialCommand", f"{_COMMAND} recipe.yml --task retrain", "'budget_fraction'", "unknown key"),
        (
            "trialCommand",
            f"{_COMMAND} recipe.yml --epochs 3",
            "--epochs",
            "must be 'nni-proxyless trial --recipe FILE'",
        ),
        ("trialCodeDirectory", "nowhere", "nowhere", "is not a folder"),
        ("trialCodeDirectory", "recipe.yml", "recipe.yml", "is not a folder"),
        ("trialCodeDirectory", ["."], "['.']", "trialCodeDirectory"),
        ("trialCodeDirectory", "~nouser", "~nouser", "home"),
        ("searchSpace", REMOVED, "None", "'searchSpace' must be a mapping"),
        ("searchSpace", [], "[]", "'searchSpace' must be a mapping"),
        ("searchSpace", "space.json", "'space.json'", "'searchSpace' must be a mapping"),
        ("searchSpace", {"budget": _CHOICE}, "'budget'", "unknown key"),
        ("searchSpace", {"budget_fractoin": _CHOICE}, "'budget_fractoin'", "did you mean 'budget_fraction'?"),
        ("searchSpace", {"budget_fraction": [0.8, 0.9]}, "[0.8, 0.9]", "must be like {_type: choice"),
        ("searchSpace", {"budget_fraction": 0.8}, "0.8", "must be like {_type: choice"),
        ("searchSpace", {"budget_fraction": {"_value": [0.8]}}, "{'_value': [0.8]}", "must be like {_type: choice"),
        ("searchSpace", {"budget_fraction": {"_type": "choice"}}, "{'_type': 'choice'}", "must be like {_type: choice"),
        ("searchSpace", {"budget_fraction": {"_type": "choice", "_value": []}}, "[]", "must be [value, …]"),
        ("searchSpace", {"budget_fraction": {"_type": "choice", "_value": 0.8}}, "0.8", "must be [value, …]"),
        ("searchSpace", {"budget_fraction": {"_type": "choise", "_value": [0.8]}}, "'choise'", "choice"),
        ("searchSpace", {"budget_fraction": {"_type": "Choice", "_value": [0.8]}}, "'Choice'", "choice"),
        ("searchSpace", {"budget_fraction": {"_type": ["choice"], "_value": [0.8]}}, "['choice']", "choice"),
        (
            "searchSpace",
            {"budget_fraction": {"type": "choice", "value": [0.8]}},
            "'type'",
            "must be like {_type: choice",
        ),
        ("searchSpace", {"budget_fraction": {"_type": "uniform", "_value": [0.8]}}, "[0.8]", "uniform"),
        ("searchSpace", {"budget_fraction": {"_type": "uniform", "_value": ["a", "b"]}}, "a", "budget_fraction"),
        ("searchSpace", {"budget_fraction": {"_type": "uniform", "_value": []}}, "[]", "uniform"),
        ("searchSpace", {"budget_fraction": {"_type": "choice", "_value": [0.8, 1.5]}}, "got 1.5", "at most 1"),
        ("searchSpace", {"budget_fraction": {"_type": "choice", "_value": ["80 %"]}}, "'80 %'", "at most 1"),
        ("searchSpace", {"epochs": {"_type": "choice", "_value": [6, 0]}}, "got 0", "'epochs' must be a whole number"),
        ("searchSpace", {"epochs": {"_type": "choice", "_value": [6, 2]}}, "got 2 of 2", "leave epochs to search in"),
        ("searchSpace", {"target": {"_type": "choice", "_value": ["phone", "watch"]}}, "'watch'", "allowed: phone"),
        ("searchSpace", {"strategy": {"_type": "choice", "_value": ["darts2"]}}, "'darts2'", "did you mean 'darts'?"),
        (
            "searchSpace",
            {"targets": {"_type": "choice", "_value": [{"phone": 3}]}},
            "got 3",
            "target 'phone' must be a mapping",
        ),
        ("searchSpace", {"latency_weight": {"_type": "choice", "_value": [0.1]}}, "latency_weight", "finds"),
        ("searchSpace", {"space": {"_type": "choice", "_value": ["nowhere.yml"]}}, "nowhere.yml", "No such file"),
        ("searchSpace", {"data": {"_type": "choice", "_value": ["mnist"]}}, "'mnist'", "allowed: arrays"),
        ("searchSpace", {5: _CHOICE}, "'5'", "a key must be a string"),
        (
            "searchSpace",
            {"budget_fraction": {"_type": "choice", "_value": [0.5 + n / 1e5 for n in range(40000)]}},
            "40000",
            "at most 10000 can be tried",
        ),
        ("trainingService", REMOVED, "None", "trainingService.platform must be 'local'"),
        ("trainingService", "local", "None", "trainingService.platform must be 'local'"),
        ("trainingService", {"platform": "remote"}, "'remote'", "nnictl create --config"),
        ("trainingService", {"platform": "Local"}, "'Local'", "trainingService.platform must be 'local'"),
        ("trainingService", {"platfrom": "local"}, "None", "trainingService.platform must be 'local'"),
        ("trainingService", [{"platform": "local"}], "None", "trainingService.platform must be 'local'"),
        ("trainingService.useGpus", True, "usegpus", "NNI does not accept"),
        ("trainingService.trialGpuNumber", 1, "1", "set trialGpuNumber: 0"),
        ("trialGpuNumber", 2, "2", "set trialGpuNumber: 0"),
        ("trialGpuNumber", "all", "all", "trialGpuNumber"),
        ("tuner", REMOVED, "'tuner' is missing", "LatencyBudget"),
        ("tuner", "LatencyBudget", "LatencyBudget", "tuner"),
        ("tuner", {"name": "LatencyBugdet"}, "LatencyBugdet", "LatencyBudget"),
        ("tuner", {"name": "Nonexistent"}, "Nonexistent", "tuner"),
        ("tuner", {"name": "LatencyBudget", "classArgs": {"tolerence": 0.1}}, "tolerence", "tolerance"),
        ("tuner", {"name": "LatencyBudget", "classArgs": {"tolerance": -1}}, "-1", "tolerance"),
        ("tuner", {"name": "LatencyBudget", "classArgs": {"tolerance": "5 %"}}, "'5 %'", "tolerance"),
        ("tuner", {"name": "LatencyBudget", "classArgs": {"max_trials_per_cell": 0}}, "0", "max_trials_per_cell"),
        ("tuner", {"name": "LatencyBudget", "classArgs": [0.1]}, "[0.1]", "classArgs"),
        ("tuner.classArgs", "tolerance: 0.1", "'tolerance: 0.1'", "classArgs"),
        ("tunner", {"name": "TPE"}, "tunner", "NNI does not accept"),
        ("trialConcurrency", 1000000000, "1000000000", "'trialConcurrency' must be a whole number from 1 to 1024"),
        ("trialConcurrency", 0, "0", "trialConcurrency"),
        ("trialConcurrency", -2, "-2", "trialConcurrency"),
        ("trialConcurrency", "two", "two", "trialConcurrency"),
        ("trialConcurrency", REMOVED, "'trialConcurrency' is missing", "the number of trials"),
        ("maxTrialNumber", 0, "0", "maxTrialNumber"),
        ("maxTrialNumber", -1, "-1", "maxTrialNumber"),
        ("maxTrialNumber", "many", "many", "maxTrialNumber"),
        ("maxTrialNumber", 2.5, "2.5", "maxTrialNumber"),
        ("maxExperimentDuration", "soon", "soon", "maxExperimentDuration"),
        ("maxExperimentDuration", "-1h", "-1h", "maxExperimentDuration"),
        ("maxTrialDuration", "1 fortnight", "1 fortnight", "maxTrialDuration"),
        ("experimentName", ["tiny"], "['tiny']", "type of experiment_name"),
        ("experimentWorkingDirectory", "recipe.yml", "recipe.yml", "experimentWorkingDirectory"),
        ("logLevel", "loud", "log_level", "['fatal', 'error', 'warning', 'info', 'debug', 'trace']"),
        ("debug", "maybe", "maybe", "debug"),
        ("assessor", {"name": "Medianstopp"}, "Medianstopp", "assessor"),
        ("sharedStorage", {"storageType": "NFS"}, "SharedStorage", "local_mount_point is not set"),
        ("serchSpace", {}, "serchspace", "NNI does not accept"),
        ("useAnnotation", True, "'useAnnotation'", "leave it out"),
    ],
)

_WITHOUT_SPACE = {key: value for key, value in CONFIG.items() if key != "searchSpace"}
_FILES = [
    Case("run nowhere.yml", "nowhere.yml", "there is no file"),
    Case("run quickstar", "'quickstar'", "did you mean 'quickstart'?"),
    Case("run empty", "'empty'", "the path of a config.yml"),
    Case("run found", "'found'", "the path of a config.yml"),
    Case("run recipe.yml", "None", "'trialCommand' must be a string"),
    Case("run table.yml", "None", "'trialCommand' must be a string"),
    Case("run notes.txt", "notes.txt", "must be a mapping"),
    Case("run images.npz", "images.npz", "text"),
    Case("run ''", "''", "the path of a config.yml"),
    Case("run ~nouser/config.yml", "~nouser", "home"),
    *[
        Case("run config.yml", received, says, {"config.yml": {**_WITHOUT_SPACE, "searchSpaceFile": name}, **files})
        for name, files, received, says in (
            ("nowhere.json", {}, "nowhere.json", "No such file"),
            ("empty", {}, "empty", "directory"),
            ("s.json", {"s.json": "[]"}, "s.json", "holds a list"),
            ("s.json", {"s.json": '{"budget_fraction": }'}, "s.json", "cannot be parsed"),
            ("s.json", {"s.json": '{"budget": {"_type": "choice", "_value": [1]}}'}, "'budget'", "unknown key"),
            (["s.json"], {}, "'searchSpaceFile'", "the path of a file"),
        )
    ],
    *[
        Case("run config.yml", received, says, {"recipe.yml": {**RECIPE, **changed}})
        for changed, received, says in (
            ({"epochs": 0}, "got 0", "'epochs' must be a whole number"),
            ({"space": "nowhere.yml"}, "nowhere.yml", "No such file"),
            ({"targets": {"phone": {"table": "other_table.yml"}}}, "lacks", "Measure the table again"),
            ({"targets": {"phone": {"table": "nowhere.yml"}}}, "nowhere.yml", "No such file"),
            ({"data": "arrays"}, "arrays", "needs data_dir"),
            ({"data": "arrays", "data_dir": "images.npz", "batch_size": 500}, "500", "choose a smaller one"),
            ({"budget_ms": 3}, "budget_ms", "not both"),
            ({"accelerator": "gpu"}, "accelerator gpu", "use accelerator: auto or cpu"),
            ({"strategy": "nowhere:Strategy", "objective": "add_linear"}, "nowhere", "cannot be loaded"),
        )
    ],
    Case(
        "run config.yml",
        "0.01",
        "the fastest takes",
        {"config.yml": {**CONFIG, "searchSpace": {"budget_fraction": {"_type": "choice", "_value": [0.9, 0.01]}}}},
    ),
    *[
        Case(
            "run config.yml",
            received,
            says,
            {
                "config.yml": {
                    **CONFIG,
                    "trialCommand": f"{_COMMAND} retrain.yml --task retrain",
                    "searchSpace": {key: {"_type": "choice", "_value": values}},
                },
                "retrain.yml": {**RETRAIN, **changed},
            },
        )
        for key, values, changed, received, says in (
            ("architecture", ["nowhere.json"], {}, "nowhere.json", "No such file"),
            ("architecture", ["mobilenet_v9"], {}, "'mobilenet_v9'", "proxyless_mobile"),
            ("architecture", ["table.yml"], {}, "table.yml", "nni-proxyless/architecture@1"),
            ("epochs", [4, "x"], {}, "'x'", "'epochs' must be a whole number"),
            ("budget_ms", [3], {}, "'budget_ms'", "unknown key"),
            ("seed", [0, 1], {"inherit": "nowhere.pt"}, "nowhere.pt", "give a weights.pt"),
        )
    ],
    Case("run config.yml --host nowhere", "nowhere", "address"),
    Case("run config.yml --host 300.1.1.1", "300.1.1.1", "address"),
    Case("run config.yml --host ''", "''", "address"),
    Case("run config.yml --host http://localhost", "http://localhost", "address"),
    Case("nnictl --host nowhere create", "nowhere", "address"),
    Case("run config.yml --results recipe.yml", "recipe.yml", "folder"),
    Case("run config.yml --results recipe.yml/out", "recipe.yml", "folder"),
]

_STARTED = {"NNI_TRIAL_JOB_ID": "abc", "NNI_PLATFORM": "local"}
_TRIALS = [
    Case(f"trial {words}", received, says, {}, environment)
    for words, environment, received, says in (
        ("--recipe nowhere.yml", {}, "by hand use", "nni-proxyless search"),
        ("--recipe recipe.yml", {"NNI_TRIAL_JOB_ID": "abc"}, "NNI_OUTPUT_DIR is not set", "nni-proxyless search"),
        ("--recipe nowhere.yml", {**_STARTED, "NNI_OUTPUT_DIR": "empty"}, "nowhere.yml", "No such file"),
        ("--recipe table.yml", {**_STARTED, "NNI_OUTPUT_DIR": "empty"}, "table.yml", "unknown key"),
        ("--recipe recipe.yml --task retrain", {**_STARTED, "NNI_OUTPUT_DIR": "empty"}, "recipe.yml", "unknown key"),
    )
]
_OTHERS = settings(
    "doctor",
    [("--port -5", "got -5", "a whole number from 1"), ("--port 80a", "got 80a", "a whole number from 1")],
)

CASES = [*_KEYS, *_FILES, *_TRIALS, *_OTHERS]
