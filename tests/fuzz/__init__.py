"""Inputs that nobody would write on purpose. For each there must be an answer or an error of ours, soon, in
little memory.

    models.py, seeds.py    GGUF files as values, and sound ones
    edits.py, damage.py    ways in which one is made wrong: as a value, and in its bytes
    reader.py              opens such a file and touches what loading touches
    templates.py, words.py   chat templates out of a grammar, and mutations of real ones
    conversations.py       what they are rendered over
    renderer.py            compiles and renders
    run.py                 many inputs in one process, watched: `scripts/fuzz`

Every input follows from a seed, so a number is enough to see it again.

How to add one: a way to be wrong is a function in the table `EDITS` (edits.py); what templates are made of is
an entry of a list in words.py; a shape of template is a row of `rules` (templates.py).
"""
