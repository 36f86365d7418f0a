#!/bin/sh
# shell.sh with as few processes as there can be: for all devices one openssl makes the
# signatures, one curl gets the quotas in parallel, one jq makes one text, and one curl
# pushes it in one group. That is quicker, and not the same: a device that leaves keeps
# its values until all are replaced.
set -eu

here=$(dirname "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/signed" "$folder/answer"
api=$ECOFLOW_API_HOST/iot-open/sign/device
timestamp=$(date +%s)000
trust=${ECOFLOW_CA_FILE:+cacert = \"$ECOFLOW_CA_FILE\"}
number=$(($$ % 90000 * 10))

# prepare NAME PATH [PARAMETER]: what is to be signed, and what is to be asked.
prepare() {
    number=$((number + 1))
    nonce=$((100000 + number % 900000))
    printf %s "${3:+$3&}accessKey=$ECOFLOW_ACCESS_KEY&nonce=$nonce&timestamp=$timestamp" \
        >"$folder/signed/$1"
    names="$names $1"
    asked="$asked$nonce $1 $2${3:+?$3}
"
}

# ask: the answers to all that is prepared, in a file each.
ask() {
    # shellcheck disable=SC2086
    (cd "$folder/signed" && exec openssl dgst -sha256 -hmac "$ECOFLOW_SECRET_KEY" -r \
        $names) >"$folder/signs"
    exec 3<"$folder/signs"
    next='# the first'
    while read -r nonce name path; do
        read -r sign _ <&3
        printf '%s\n' "$next" "url = \"$api/$path\"" "header = \"nonce: $nonce\"" \
            "header = \"accessKey: $ECOFLOW_ACCESS_KEY\"" "header = \"sign: $sign\"" \
            "header = \"timestamp: $timestamp\"" "output = \"$folder/answer/$name\"" \
            fail "$trust"
        next=next
    done >"$folder/config" <<END
${asked%?}
END
    exec 3<&-
    curl -sS -Z --no-progress-meter -K "$folder/config"
}

names='' asked=''
prepare list list
ask
names='' asked=''
for sn in $(jq -L "$here" -r \
    'include "exposition"; data[] | select(.online == 1) | .sn' "$folder/answer/list"); do
    prepare "$sn" quota/all "sn=$sn"
done
ask
# shellcheck disable=SC2016
jq -L "$here" -rn 'include "exposition";
    ( input | data | map({ key: .sn, value: . }) | from_entries ) as $devices
    | [ inputs | data as $data | (input_filename | split("/") | .[-1]) as $sn
        | $devices[$sn] as $of
        | $data | samples($sn; $of.deviceName; $of.productName) ] | text' \
    "$folder/answer/list" "$folder/answer/"[!l]* >"$folder/text"
printf '%s\n' '# HELP ecoflow_push_success Whether the run had succeeded when it pushed.' \
    '# TYPE ecoflow_push_success gauge' 'ecoflow_push_success 1' >"$folder/run"
curl -fsS -Z --no-progress-meter -X PUT --data-binary "@$folder/text" \
    "$PUSHGATEWAY_URL/metrics/job/ecoflow/device/all" \
    --next -fsS -X PUT --data-binary "@$folder/run" \
    "$PUSHGATEWAY_URL/metrics/job/ecoflow_push/instance/shell"
