"""--init: asks, tries every answer at once, and writes the file of settings.

No run imports it. What it tries is what will be run: settings made of the answers as
the file will hold them, and the probes of --check.
"""
