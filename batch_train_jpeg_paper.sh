#!/bin/sh
# The whole training, into OUT: rounds of fresh patches, each with its slice of one
# schedule. The best weights are then in OUT/best; with them go the model file for LiteRT
# and what fuses the patches of an image, their likelihood and the confidence threshold.
# They are evaluated last. Nothing else is written; the last lines say how to install them.
#
#   ./batch_train_jpeg_paper.sh [comp_type]     (default: jpeg_paper)
#
# Photos come from DIV2K_train_HR and DIV2K_valid_HR, or from TRAIN_DIR and VALID_DIR.
# OUT is out/<comp_type>, if it is not set. It stops at the first failure; started again,
# it goes on where it was. Longer training: more ROUNDS and EPOCHS (of STEPS of 1,024
# patches each). To go on from weights that are there: BASE_WEIGHTS (their folder, or a
# weights.npz), another OUT, and a SEED for other patches; if they are a narrower network's,
# BASE_TYPE names its comp_type, and it is widened. FRAMEWORK=pytorch trains with PyTorch,
# all but the last epoch. EDITS=1 edits images after compression, as is done for jpeg_robust
# unless EDITS=0; UNCOMPRESSED patches of each round are of images as they are.
set -eu
absolute() { case $1 in (/*) printf %s "$1" ;; (*) printf %s "$PWD/$1" ;; esac; }
train_dir=${TRAIN_DIR:+$(absolute "$TRAIN_DIR")}
valid_dir=${VALID_DIR:+$(absolute "$VALID_DIR")}
out=${OUT:+$(absolute "$OUT")}
base=${BASE_WEIGHTS:+$(absolute "$BASE_WEIGHTS")}
CDPATH='' cd -- "$(dirname -- "$0")"

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
uncompressed=${UNCOMPRESSED:-0}  # patches of images as they are, in each round
case $comp_type in (jpeg_robust) edits=${EDITS:-1} ;; (*) edits=${EDITS:-0} ;; esac

for dir in "$train_dir" "$valid_dir"; do
    if [ ! -d "$dir" ]; then
        echo "$dir: no such folder; get DIV2K_train_HR.zip and DIV2K_valid_HR.zip from" \
             "https://data.vision.ee.ethz.ch/cvl/DIV2K/ or set TRAIN_DIR and VALID_DIR" >&2
        exit 2
    fi
done
for number in "ROUNDS=$rounds" "EPOCHS=$epochs" "SEED=$seed" "NUM_SAMPLES=$samples" \
        "UNCOMPRESSED=$uncompressed"; do
    case ${number#*=} in
        (*[!0-9]*|0?*) echo "$number: set ${number%%=*} to a whole number, as 3" >&2; exit 2 ;;
    esac
done
if [ "$rounds" -lt 1 ] || [ "$rounds" -gt "$epochs" ]; then
    echo "ROUNDS=$rounds, EPOCHS=$epochs: at least one round, and an epoch for each" >&2
    exit 2
fi
case $edits in
    (0) edit_options= ;;
    (1) edit_options=--edits ;;
    (*) echo "EDITS=$edits: set EDITS to 1, or to 0" >&2; exit 2 ;;
esac
if [ "$samples" -lt 1 ]; then
    echo "NUM_SAMPLES=$samples: at least one patch for each quality" >&2
    exit 2
fi
. ./env.sh
mkdir -p "$out"

gen_data() {  # folder, file, patches for each quality, seed, chroma
    [ -f "$out/$2" ] || python3 classifier/gen_data.py --in_path "$1" --comp_type "$comp_type" \
        --num_samples "$3" --hdf5_name "$2" --out_path "$out" --seed "$4" --chroma "$5" \
        --uncompressed $((uncompressed * $3 / samples)) $edit_options
}

train() {  # round, last epoch of the schedule to do now, framework
    resume=
    if [ -f "$out/run.json" ]; then resume=--resume; fi
    python3 classifier/train.py --comp_type "$comp_type" --seed "$seed" $resume \
        ${base:+--base_weights "$base"} ${BASE_TYPE:+--base_type "$BASE_TYPE"} \
        --hdf5_train_path "$out/train_$1.h5" --hdf5_val_path "$out/val.h5" --out_path "$out" \
        --epochs "$epochs" --steps_per_epoch "$steps" --batch_size 1024 --lr "$lr" \
        --until_epoch "$2" --framework "$3"
}

evaluate() {  # folder, options
    in_path=$1
    shift
    python3 classifier/evaluate_cls.py --in_path "$in_path" --comp_type "$comp_type" \
        --weights "$out/best" "$@"
}

gen_data "$valid_dir" val.h5 600 1000 4:2:0
round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    if [ ! -f "$out/round_$round.done" ]; then
        gen_data "$train_dir" "train_$round.h5" "$samples" $((seed + round)) mixed
        if [ "$round" = "$rounds" ] && [ "$framework" != tensorflow ] && [ "$epochs" -gt 1 ]; then
            train "$round" $((epochs - 1)) "$framework"
            framework=tensorflow
        fi
        train "$round" $((epochs * round / rounds)) "$framework"
        touch "$out/round_$round.done"
    fi
    rm -f "$out/train_$round.h5"
done

python3 classifier/to_tflite.py --comp_type "$comp_type" --weights "$out/best" \
    --quantize int8 --out_path "$out/best"
if [ "$comp_type" = jpeg_robust ]; then fit=posterior; else fit=likelihood; fi
evaluate "$train_dir" --fit $fit --limit 500 --out_path "$out/best"
set -- --qualities 5-95:10 --crop 0,0 --crop 3,5
evaluate "$valid_dir" "$@" --fit threshold --out_path "$out/best"
evaluate "$valid_dir" "$@" --out_path "$out"

cat <<END
The trained weights are in $out/best; --weights '$out/best' uses them. To put them in place
of those in classifier/save/$comp_type/best, type in the repository's folder:
    python3 classifier/train.py --comp_type $comp_type --install '$out/best'
END
