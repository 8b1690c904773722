"""The HTTP server: OpenAI's API over one engine.

    run.py         the socket, the signals, the thread that loads the model
    app.py         routes, and what stands before them
    guards.py      who may ask: host, origin, key, size
    body.py        a request's bytes to a JSON object; fields.py checks it, one row a field
    slot.py        the model's place, empty while it loads; model.py says what is needed of one
    openai.py      /v1/...        tokens.py  /tokenize, /detokenize
    call.py        a checked call, and its answer, whole or streamed
    answering.py   requests to the engine, its events back to the event loop
    shapes.py      what a chat or text completion looks like, whole and in chunks
    streaming.py   server-sent events, and noticing that the client has gone
    metrics.py     /metrics: what is asked when somebody looks; metered.py counts events as they pass
    errors.py      exceptions to OpenAI's error bodies

Sampling fields that a request leaves out take the model's own defaults (`general.sampling.*` in its file),
then those of `SamplingParams`, which are llama.cpp's, not OpenAI's.

How to add one: an endpoint is an async function from a request to a response, with a `Route` in its file's
`ROUTES` (a new file's `ROUTES` is named in app.py). A field is a row in a table of fields.py.
"""
