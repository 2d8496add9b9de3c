"""AWS played back from a recording, for benchmarks: any number of accounts, with AWS's latency and rate limits.

The simulated AWS answers with moto, which takes milliseconds of CPU a call, and would be what a benchmark measures.
Here one account of it is recorded, through a proxy, and a server answers with that for every account that is asked for:

    from bench.replay.recorder import record
    from bench.replay.running import start_replay

    with start_simulated_aws(accounts=2, size=20) as aws:
        with record(aws.endpoint_url, aws.accounts[1], Path("before.gz")) as recording_url:
            ...                                     # a sync of that account by each side, against recording_url
    with start_replay([Path("before.gz")], latency_ms=100) as replay:
        ...                                         # syncs of any accounts, against replay.endpoint_url

    recorder.py    the proxy that records            recording.py   the file
    requests.py    which requests are the same       accounts.py    one account's text made another's
    answers.py     what is made up and not recorded  limits.py      token buckets
    connections.py HTTP                              server.py      the process, and its command line
    running.py     starts it and talks to it         cost.py        what a call costs it: python -m bench.replay.cost
"""
