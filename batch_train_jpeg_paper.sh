#!/usr/bin/env bash
# The whole training: rounds of fresh patches, each with its slice of one schedule, then
# the model file for LiteRT and what fuses the patches of an image: their likelihood and
# the confidence threshold.
#
#   ./batch_train_jpeg_paper.sh [comp_type]     (default: jpeg_paper)
#
# Photos come from DIV2K_train_HR and DIV2K_valid_HR, or from TRAIN_DIR and VALID_DIR.
# It stops at the first failure; started again, it goes on where it was. Longer
# training: more ROUNDS and EPOCHS (of STEPS of 1,024 patches each). To go on from weights
# that are there: BASE_WEIGHTS, another OUT, and a SEED for other patches; if they are a
# narrower network's, BASE_TYPE names its comp_type, and it is widened. FRAMEWORK=pytorch
# trains with PyTorch, all but the last epoch. To finish the weights of
# classifier/train_gpu.py, give its weights.npz as BASE_WEIGHTS.
set -euo pipefail
absolute() { case $1 in (/*) echo "$1" ;; (*) echo "$PWD/$1" ;; esac; }
train_dir=${TRAIN_DIR:+$(absolute "$TRAIN_DIR")}
valid_dir=${VALID_DIR:+$(absolute "$VALID_DIR")}
out=${OUT:+$(absolute "$OUT")}
base=${BASE_WEIGHTS:+$(absolute "$BASE_WEIGHTS")}
cd "$(dirname "$0")"

comp_type=${1:-jpeg_paper}
train_dir=${train_dir:-DIV2K_train_HR}
valid_dir=${valid_dir:-DIV2K_valid_HR}
out=${out:-out/$comp_type}
rounds=${ROUNDS:-3}
epochs=${EPOCHS:-12}           # of all rounds together
steps=${STEPS:-1000}           # of 1,024 patches, in an epoch
lr=${LR:-2e-3}                 # highest learning rate
samples=${NUM_SAMPLES:-20000}  # patches for each quality, in each round
seed=${SEED:-0}                # of weights and data; round N makes its patches with SEED + N
framework=${FRAMEWORK:-tensorflow}

for dir in "$train_dir" "$valid_dir"; do
    if [ ! -d "$dir" ]; then
        echo "$dir: no such folder; get DIV2K_train_HR.zip and DIV2K_valid_HR.zip from" \
             "https://data.vision.ee.ethz.ch/cvl/DIV2K/ or set TRAIN_DIR and VALID_DIR" >&2
        exit 2
    fi
done
if [ "$rounds" -gt "$epochs" ]; then
    echo "ROUNDS=$rounds is more than EPOCHS=$epochs: a round needs an epoch at least" >&2
    exit 2
fi
. ./env.sh
mkdir -p "$out"

gen_data() {  # folder, file, patches for each quality, seed, chroma
    [ -f "$out/$2" ] || python3 classifier/gen_data.py --in_path "$1" --comp_type "$comp_type" \
        --num_samples "$3" --hdf5_name "$2" --out_path "$out" --seed "$4" --chroma "$5"
}

train() {  # round, last epoch of the schedule to do now, framework
    options=(--seed "$seed" ${base:+--base_weights "$base"} ${BASE_TYPE:+--base_type "$BASE_TYPE"})
    [ -f "$out/run.json" ] && options+=(--resume)
    python3 classifier/train.py --comp_type "$comp_type" "${options[@]}" --out_path "$out" \
        --hdf5_train_path "$out/train_$1.h5" --hdf5_val_path "$out/val.h5" \
        --epochs "$epochs" --steps_per_epoch "$steps" --batch_size 1024 --lr "$lr" \
        --until_epoch "$2" --framework "$3"
}

to_tflite() {
    python3 classifier/to_tflite.py --comp_type "$comp_type" --quantize int8 \
        --out_path "classifier/save/$comp_type/best"
}

gen_data "$valid_dir" val.h5 600 1000 4:2:0
for ((round = 1; round <= rounds; round++)); do
    [ -f "$out/round_$round.done" ] && rm -f "$out/train_$round.h5" && continue
    gen_data "$train_dir" "train_$round.h5" "$samples" $((seed + round)) mixed
    if [ "$round" = "$rounds" ] && [ "$framework" != tensorflow ] && [ "$epochs" -gt 1 ]; then
        train "$round" $((epochs - 1)) "$framework"
        framework=tensorflow
    fi
    train "$round" $((epochs * round / rounds)) "$framework"
    touch "$out/round_$round.done"
    rm "$out/train_$round.h5"
done
to_tflite
python3 classifier/evaluate_cls.py --in_path "$train_dir" --comp_type "$comp_type" \
    --fit_likelihood --limit 200 --out_path "$out"
for option in --find_threshold ''; do
    python3 classifier/evaluate_cls.py --in_path "$valid_dir" --comp_type "$comp_type" \
        --qualities 5-95:10 --crop 0,0 --crop 3,5 $option --out_path "$out"
done
to_tflite  # once more, for the threshold in it
