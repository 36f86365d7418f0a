# The text of a device's quotas, for shell.sh and shell_tuned.sh.

# The spelling of inflection.underscore.
def metric_name:
  gsub("[.\\[\\]_]+"; "_") | ltrimstr("_") | rtrimstr("_")
  | gsub("(?<a>[A-Z]+)(?<b>[A-Z][a-z])"; .a + "_" + .b)
  | gsub("(?<a>[a-z0-9])(?<b>[A-Z])"; .a + "_" + .b)
  | ascii_downcase | gsub("[^a-z0-9_]"; "_");

def number: if . == true then 1 elif . == false then 0 else . end;

def data: if .code == "0" then .data else error("code \(.code): \(.message)") end;

# The samples of the data of a device.
def samples($sn; $name; $product):
  "device=\($sn | tojson),device_name=\($name | tojson),product_name=\($product | tojson)"
    as $labels
  | { name: "online", value: 1, $labels,
      help: "Whether EcoFlow says that the device is online." },
    { name: "device_info", value: 1, labels: ($labels + ",source=\"rest\""),
      help: "A device of the account and how it was read; always 1." },
    { name: "snapshot_timestamp_seconds", value: now, $labels,
      help: "When the device\u0027s values were collected." },
    ( paths(type == "number" or type == "boolean") as $path
      | [$path[] | numbers] as $indices
      | { name: ([$path[] | strings] | join(".") | metric_name),
          value: (getpath($path) | number),
          labels: ( $labels + ( $indices | to_entries
            | map(",index_\(.key)=\"\(.value)\"") | add // "" ) ),
          help: "Quota as EcoFlow reports it, not rescaled." } );

# An array of samples as text. A gateway logs each HELP that differs from another's.
def text:
  group_by(.name)[]
  | "# HELP ecoflow_\(.[0].name) \(.[0].help)\n# TYPE ecoflow_\(.[0].name) gauge",
    (.[] | "ecoflow_\(.name){\(.labels)} \(.value)");
