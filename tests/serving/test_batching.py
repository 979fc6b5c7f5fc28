"""The queues between clients and the computing thread."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from recognizer_cases import Script, make_recognizer

from summarymix.decoding.words import Transcript
from summarymix.serving.batching import Batcher, Feed, Message, Rules, Setting, _Outcome

SECOND = np.zeros(16_000, np.float32)
TALK = {3 * i: letter for i, letter in enumerate("abcdefgh")}  # a letter every 120 ms


@pytest.fixture
def batcher() -> Batcher:
    recognizer = make_recognizer()
    recognizer.search = Script(recognizer.model, TALK)
    return Batcher(recognizer, 2, Rules())


def in_loop(run: Callable[[], object]) -> None:
    asyncio.run(run())


def compute(batcher: Batcher, feed: Feed) -> int:
    """Compute rounds until audio is missing, and return their number."""
    rounds = 0
    while not feed._closed and (job := feed.next_job()) is not None:
        [outcome], _ = batcher._compute([], [job])
        feed.deliver(outcome)
        rounds += 1
    return rounds


def test_samples_go_on_in_whole_chunks(batcher: Batcher) -> None:
    async def run() -> None:
        feed = batcher.open(Setting(320, 0), 16_000)
        await feed.put(SECOND[:4800])
        assert feed.next_job() is None
        await feed.put(SECOND[:4800])  # 0.6 s
        assert compute(batcher, feed) == 1
        await feed.put(SECOND[:400])
        assert feed.next_job() is None

    in_loop(run)


def test_empty_blocks_take_no_memory(batcher: Batcher) -> None:
    async def run() -> None:
        feed = batcher.open(Setting(320, 0), 16_000)
        for _ in range(10):
            await feed.put(SECOND[:0])
        assert not feed._blocks
        feed.end()
        assert compute(batcher, feed) == 1

    in_loop(run)


def test_a_client_waits_for_more_than_two_chunks_and_a_second(batcher: Batcher) -> None:
    async def run() -> None:
        feed = batcher.open(Setting(320, 0), 16_000)
        await feed.put(SECOND)
        waiting = asyncio.create_task(feed.put(SECOND))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        feed.next_job()
        await waiting

    in_loop(run)


def test_partial_texts_are_merged_and_final_ones_are_kept(batcher: Batcher) -> None:
    async def run() -> None:
        feed = batcher.open(Setting(320, 0), 16_000)
        messages = feed.messages()
        seen = []
        for _ in range(4):
            feed._blocks.append(SECOND)
            feed._num_samples += len(SECOND)
            compute(batcher, feed)
            if len(seen) < 1:
                seen.append(await anext(messages))
        feed.end()
        compute(batcher, feed)
        seen += [message async for message in messages]
        assert [(message.transcript.text, message.final) for message in seen] == [
            ("abcdefgh", False),
            ("abcdefgh", True),
        ]

    in_loop(run)


def test_a_dropped_stream_frees_its_place(batcher: Batcher) -> None:
    async def run() -> None:
        for _ in range(5):  # there are two
            feed = batcher.open(Setting(320, 0), 16_000)
            await feed.put(SECOND)
            compute(batcher, feed)
            feed.cancel()
            feed.cancel()
            assert not batcher._feeds
            batcher._compute(batcher._dropped, [])
            batcher._dropped = []
            assert not batcher._sets  # memory of this setting's recogniser

    in_loop(run)


def test_an_unread_partial_text_outlasts_a_round_without_news() -> None:
    async def run() -> None:
        feed = Batcher(make_recognizer(), 2, Rules()).open(Setting(320, 0), 16_000)
        feed.deliver(_Outcome(feed, [], Message(Transcript("a", 0.0, 1.0, [], []), False, 1.0), 0.3, False))
        feed.deliver(_Outcome(feed, [], None, 0.3, False))
        message = await asyncio.wait_for(anext(feed.messages()), 1)
        assert message.transcript.text == "a"

    asyncio.run(run())
