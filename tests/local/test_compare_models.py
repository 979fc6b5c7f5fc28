"""The script that trains models under one budget, with a run.sh that only notes its options."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

COMPARE = f"""#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
. {ROOT}/local/compare_models.sh
models="a b+c"
before=conf/first.yaml
after=conf/last.yaml
train_options+=" --max-steps 5"
begin_comparison "$@"
compare_models --left-chunks 4
"""
RUN = """#!/usr/bin/env bash
printf '<%s>' "$@" >>runs
echo " $OMP_NUM_THREADS" >>runs
"""


def test_each_model_runs_with_each_seed(fast_python: dict[str, str], tmp_path: Path) -> None:
    for name, text in (("compare.sh", COMPARE), ("run.sh", RUN)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    command = [tmp_path / "compare.sh", "--seeds", "1 2", "--prepare-options", "--nj 3"]
    result = subprocess.run(command, capture_output=True, text=True, env=fast_python)
    # No model was trained.
    assert result.returncode == 1
    assert "need experiments called MODEL-sSEED" in result.stderr
    assert (tmp_path / "runs").read_text().splitlines() == [
        f"<--exp-dir><exp-compare/{model}-s{seed}><--config><conf/first.yaml {configs} conf/last.yaml>"
        f"<--prepare-options><--nj 3><--train-options><--seed {seed} --keep_last_k 3 --keep_best_k 1 --max-steps 5>"
        "<--left-chunks><4> 1"
        for seed in (1, 2)
        for model, configs in (("a", "conf/a.yaml"), ("b+c", "conf/b.yaml conf/c.yaml"))
    ]
