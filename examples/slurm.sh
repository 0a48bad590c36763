#!/bin/bash
# One training on every GPU of two nodes, under SLURM:  sbatch examples/slurm.sh configs/lenet.yaml runs/lenet
#   Before the time is up SLURM sends SIGTERM: the state is saved, and the job queues again and goes on with its run folder, which all nodes
#   must see. A process that dies is started again by torchrun, three times, from the last checkpoint.
#SBATCH --job-name=nnrun
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@90
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
config=$1 out=$2

resume=()
if [ -f "$out/config.yaml" ]; then resume=(--resume); fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# torchrun hands SIGTERM on to the training, and ends with 1 whatever that ends with: whether to queue again is known here.
stopped= job=
trap 'stopped=yes; kill -TERM "$job"' TERM

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:29500" \
    -m nnrun train "$config" --out "$out" --quiet "${resume[@]}" &
job=$!
wait "$job"
code=$?
if [ -n "$stopped" ]; then
    wait "$job"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
