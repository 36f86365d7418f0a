"""What is known of models, as data.

products.tsv    which device is which: by serial, by product's name, by a key
families/       which keys of a family are which metric; a file each
metrics.tsv     what a metric's name means, and what is impossible
messages.tsv    which binary message says what; its fields are in schema/

`normalized` is what reads a device by them.
"""
