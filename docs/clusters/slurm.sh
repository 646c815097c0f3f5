#!/bin/bash
# A sweep on the nodes that SLURM gives it: Ray on each, the driver on the first.
#
#   sbatch --nodes=4 --gpus-per-node=8 --time=04:00:00 slurm.sh +experiment=support_bot
#
# Submit it from the project's folder, which all nodes must see, with its virtual environment in .venv. What
# follows the script's name goes to `python -m sweep`. Two minutes before its time is over the sweep stops, keeps
# what its trials have learnt, and the job is queued again: it goes on where it stopped. A node that fails takes
# none of the others along.
#SBATCH --job-name=sweep
#SBATCH --output=sweep-%j.log
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=1
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail
source .venv/bin/activate

address_of() { scontrol show node "$1" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2; }

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(address_of "${nodes[0]}"):$((20000 + SLURM_JOB_ID % 20000))

# Who has the token may run anything on the nodes; without it nobody may.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/.ray-token-$SLURM_JOB_ID RAY_USAGE_STATS_ENABLED=0
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

start() {  # node, then where it belongs
  srun --nodes=1 --ntasks=1 --nodelist="$1" --no-kill \
    ray start --block --node-ip-address="$(address_of "$1")" --num-cpus="$SLURM_CPUS_ON_NODE" \
    --num-gpus="${SLURM_GPUS_ON_NODE:-0}" "${@:2}" &
}
start "${nodes[0]}" --head --port="${head##*:}" --include-dashboard=false
for _ in {1..120}; do
  ray status --address="$head" &> /dev/null && break
  sleep 1
done
for node in "${nodes[@]:1}"; do
  start "$node" --address="$head"
done

python -m sweep "$@" backend=ray backend.address="$head" &
driver=$!
trap 'kill -TERM "$driver"' TERM
code=0
wait "$driver" || code=$?
# A signal ends `wait` before the driver has kept what there is.
while kill -0 "$driver" 2> /dev/null; do code=0; wait "$driver" || code=$?; done
if [ "$code" = 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
