#!/bin/sh
# The job of push.py as a script of curl, openssl and jq, to compare with: a signed
# device list, the quotas of each device that is online, one group per device and one
# of the run. It has no retries, deadline, lock or memory, and shows its keys to ps.
set -eu

here=$(dirname "$0")
asked=0

# get PATH [PARAMETER]: the answer to a signed request.
get() {
    timestamp=$(date +%s)000
    nonce=$(printf %06d $((($$ * 10 + asked) % 1000000)))
    signed="${2:+$2&}accessKey=$ECOFLOW_ACCESS_KEY&nonce=$nonce&timestamp=$timestamp"
    sign=$(printf %s "$signed" | openssl dgst -sha256 -hmac "$ECOFLOW_SECRET_KEY" -r)
    curl -fsS ${ECOFLOW_CA_FILE:+--cacert "$ECOFLOW_CA_FILE"} \
        -H "accessKey: $ECOFLOW_ACCESS_KEY" -H "nonce: $nonce" \
        -H "timestamp: $timestamp" -H "sign: ${sign%% *}" \
        "$ECOFLOW_API_HOST/iot-open/sign/device/$1${2:+?$2}"
}

# put GROUP: the input replaces the group.
put() {
    curl -fsS -X PUT --data-binary @- "$PUSHGATEWAY_URL/metrics/$1"
}

tab=$(printf '\t')
get list | jq -r '
    if .code == "0" then .data[] else error("code \(.code): \(.message)") end
    | select(.online == 1) | [.sn, .deviceName, .productName] | @tsv' |
    while IFS=$tab read -r sn name product; do
        asked=$((asked + 1)) # a pair of nonce and timestamp serves once
        get quota/all "sn=$sn" |
            jq -L "$here" -r --arg sn "$sn" --arg name "$name" --arg product "$product" \
                'include "exposition"; [data | samples($sn; $name; $product)] | text' |
            put "job/ecoflow/device/$sn"
    done
put "job/ecoflow_push/instance/shell" <<END
# HELP ecoflow_push_success Whether the run had succeeded when it pushed this.
# TYPE ecoflow_push_success gauge
ecoflow_push_success 1
END
