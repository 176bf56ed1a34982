"""What a server remembers of its requests."""

from loopback.openai.wire import COMPLETIONS, GENERATE, PROMPT, Serve, complete


def test_requests_are_counted_and_kept(serve: Serve) -> None:
    server = serve(remembered=2)
    for seed in range(3):
        complete(server, prompt=PROMPT, max_tokens=1, seed=seed)
    assert server.traffic.counts == {COMPLETIONS: 3}
    assert [request.body["seed"] for request in server.traffic.requests(COMPLETIONS)] == [1, 2]
    assert server.traffic.requests(GENERATE) == ()
    server.traffic.clear()
    assert (server.traffic.counts, server.traffic.most_at_once) == ({}, 0)
