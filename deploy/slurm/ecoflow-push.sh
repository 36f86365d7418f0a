#!/bin/bash
# The whole fleet once, as a Slurm array: each task does a run over the accounts of its
# shard, from the folder where sbatch is called. docs/fleet.md says what must be there.
#
#   sbatch ecoflow-push.sh              all shards
#   sbatch --array=3 ecoflow-push.sh    shard 3 alone, once more
#
# Another number of shards, say five: --array=0-4 and SHARD_COUNT=5, both of them here.
# Slurm's own count is not what is meant: of --array=3 it is one.
#SBATCH --array=0-7
#SBATCH --job-name=ecoflow-push
# Nothing of the environment of whoever calls sbatch is kept by Slurm, or gets here.
#SBATCH --export=NONE
#SBATCH --output=ecoflow-push-%a.log
#SBATCH --open-mode=append
#SBATCH --mem=256M
# A run ends by itself, at the very latest 10 s after RUN_DEADLINE (50 s): whoever raises
# that raises this too. Slurm counts in minutes.
#SBATCH --time=2
# What could not begin within a minute is not begun at all, since the next array does
# its work: a cluster that was full for an hour is not to do sixty at once. It is the
# latest end; whoever calls sbatch less often gives it more.
#SBATCH --deadline=now+3minutes
#SBATCH --requeue

SHARD_COUNT=8
# How often a task is tried again that ended with 69, 74 or 75, which may go well later
# (docs/exit-statuses.md). Slurm holds it back for two minutes: with an array every
# minute the next one comes sooner, so none; with one every ten minutes, once or twice,
# and a later deadline above.
REQUEUES=0

# Stronger than what fleet.env says.
SHARD_INDEX=$SLURM_ARRAY_TASK_ID
export SHARD_COUNT SHARD_INDEX
# bash would end at a SIGTERM, and with it the task, which kills what is left of the run.
# So that has the two seconds that it needs, and its own status.
trap : TERM
~/ecoflow-push/.venv/bin/python ~/ecoflow-push/push.py --env-file fleet.env
status=$?

case $status in
    69 | 74 | 75)
        if [ "${SLURM_RESTART_COUNT:-0}" -lt "$REQUEUES" ]; then
            # Not $SLURM_JOB_ID: the last task has the array's, which means all of them.
            scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
        fi
        ;;
esac
exit "$status"
