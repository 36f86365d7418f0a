#!/bin/sh
# The job of push.py as a script of curl, openssl and jq, to compare with: a signed
# device list, the quotas of each device that is online, one group per device and one
# of the run. It has no retries, deadline, lock or memory, and shows its keys to ps.
set -eu

# shellcheck disable=SC2016
EXPOSITION='
# The spelling of inflection.underscore.
def metric_name:
  gsub("[.\\[\\]_]+"; "_") | ltrimstr("_") | rtrimstr("_")
  | gsub("(?<a>[A-Z]+)(?<b>[A-Z][a-z])"; .a + "_" + .b)
  | gsub("(?<a>[a-z0-9])(?<b>[A-Z])"; .a + "_" + .b)
  | ascii_downcase | gsub("[^a-z0-9_]"; "_");

def number: if . == true then 1 elif . == false then 0 else . end;

# A gateway logs each HELP that differs from what another pusher said.
def head($name; $help):
  "# HELP ecoflow_\($name) \($help)\n# TYPE ecoflow_\($name) gauge";

def gauge($name; $help; $labels; $value):
  head($name; $help), "ecoflow_\($name){\($labels)} \($value)";

"device=\($sn | tojson),device_name=\($name | tojson),product_name=\($product | tojson)"
  as $labels
| if .code == "0" then .data else error("code \(.code): \(.message)") end
| gauge("online"; "Whether EcoFlow says that the device is online."; $labels; 1),
  gauge("device_info"; "A device of the account and how it was read; always 1.";
    $labels + ",source=\"rest\""; 1),
  gauge("snapshot_timestamp_seconds"; "When the device\u0027s values were collected.";
    $labels; now),
  ( [ paths(type == "number" or type == "boolean") as $path
      | { name: [$path[] | strings] | join(".") | metric_name,
          indices: [$path[] | numbers],
          value: getpath($path) | number } ]
    | group_by(.name)[]
    | head(.[0].name; "Quota as EcoFlow reports it, not rescaled."),
      ( .[]
        | ( .indices | to_entries | map(",index_\(.key)=\"\(.value)\"") | add // "" )
          as $places
        | "ecoflow_\(.name){\($labels)\($places)} \(.value)" ) )'

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
            jq -r --arg sn "$sn" --arg name "$name" --arg product "$product" "$EXPOSITION" |
            put "job/ecoflow/device/$sn"
    done
put "job/ecoflow_push/instance/shell" <<END
# HELP ecoflow_push_success Whether the run had succeeded when it pushed this.
# TYPE ecoflow_push_success gauge
ecoflow_push_success 1
END
