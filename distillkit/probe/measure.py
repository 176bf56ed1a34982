"""The probe: a few rows sampled and scored, in ways that must all give the same.

Sampler and scorers are asked through their roles alone, so that every backend is measured alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, RunFailedError
from distillkit.loop.outcomes import LostCompletion
from distillkit.loop.sample_and_score import sample_all
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.preflight.turn_ends import ends_of
from distillkit.probe.figures import ProbeFigures, TeacherFigures
from distillkit.probe.measure_teacher import TeacherProbe, tokens_scored
from distillkit.probe.measure_weights import sampler_disagreement
from distillkit.probe.rows import sample_requests
from distillkit.probe.sampling_test import SamplingTest, untouched_sampling
from distillkit.records import Rollout, ScoreRequest
from distillkit.roles.attribution import attribute_to
from distillkit.seeds import derive_seed
from distillkit.tokenizer import Tokenizer, vocabulary_size, wrong_end
from distillkit.types import Prompts, SampleKey, SampleRequest, SamplingParams

PURPOSE = "probe"
"""Part of its seeds, so that they are no step's and no evaluation's."""
NEXT_TOKENS, TIMES = 8, 16
"""Of the sampling test: after how many prompts a next token is sampled, and how often."""
BEHIND = 16
"""Tokens of a completion, at most, that stand behind every other of those prompts."""


def least_tokens(prepared: PreparedRun) -> int:
    """Fewer tokens than any probe of a run may take: known before a row is read, since prompts are not in it."""
    rows, new = min(prepared.config.probe.rows, len(prepared.dataset)), prepared.sampling.max_tokens
    return rows * (new + min(tokens_scored(scorer, [new]) for scorer in prepared.plugins.scorers.values()))


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a prepared run, on the rows of `prompts`; its plugins must be open to measure."""

    prepared: PreparedRun
    prompts: list[Prompts]

    @property
    def tokens(self) -> int:
        """How many tokens are sampled and scored at most; prompts count wherever they are read. For open plugins."""
        new = self.prepared.sampling.max_tokens
        lengths = [len(row_prompts.student) for row_prompts in self.prompts]
        sampled = sum(lengths) + len(lengths) * new
        tested = TIMES * sum(length + min(BEHIND, new // 2) + 1 for length in lengths[:NEXT_TOKENS])
        scored = 0
        for teacher, scorer in self.prepared.plugins.scorers.items():
            read = [len(each.teachers[teacher]) + new for each in self.prompts if teacher in each.route.teachers]
            scored += tokens_scored(scorer, read) if read else 0
        return sampled + tested + scored

    async def measured(self) -> ProbeFigures:
        """The figures.

        Raises:
            RunFailedError: if nothing could be sampled, or a teacher could score nothing.
            PluginError: for logprobs of the student's own that do not fit the tokens.
        """
        params = self.prepared.sampling
        requests = sample_requests(self.prepared, self.prompts, PURPOSE)
        sampled, lost = await self._sampled(requests)
        wrong = {rollout.key: reason for rollout in sampled if (reason := wrong_end(rollout)) is not None}
        rollouts = [rollout for rollout in sampled if rollout.key not in wrong]
        failures = [*(completion.reason for completion in lost), *wrong.values()]
        if not rollouts:
            raise RunFailedError(f"no completion could be sampled; the first failure: {failures[0]}")
        sampling, tested = await self._sampling_test(rollouts, params)
        teachers, scored_tokens = await self._teachers(rollouts)
        asked, rows_of = {figures.teacher for figures in teachers}, self.prepared.pipeline.rows_of
        return ProbeFigures(
            rows=len(self.prompts),
            completions=len(rollouts),
            sampled_tokens=sum(len(rollout.token_ids) for rollout in rollouts) + tested,
            scored_tokens=scored_tokens,
            failed=len(failures),
            failure=failures[0] if failures else None,
            ended=sum(rollout.finish_reason == "stop" for rollout in rollouts),
            max_completion_tokens=params.max_tokens,
            teachers=tuple(teachers),
            not_asked=tuple(name for name, rows in rows_of.items() if rows and name not in asked),
            sampling=sampling,
            run_samples_otherwise=not params.is_untouched,
            weights=await sampler_disagreement(self.prepared.config.student, rollouts),
            warn_logprob_mismatch=self.prepared.config.train.warn_logprob_mismatch,
        )

    async def _teachers(self, rollouts: Sequence[Rollout]) -> tuple[list[TeacherFigures], int]:
        """The figures of each teacher that has something to score, and how many tokens all of them scored."""
        teachers: list[TeacherFigures] = []
        scored_tokens = 0
        for teacher, scorer in self.prepared.plugins.scorers.items():
            to_score = self._to_score(teacher, rollouts)
            if to_score:
                ends = ends_of(self.prepared.renderer.teachers[teacher]).own
                probe = TeacherProbe(scorer, to_score, self._tokenizer, ends)
                teachers.append(await probe.measured())
                lengths = [len(request.prompt_ids) + len(request.token_ids) for request in to_score]
                scored_tokens += tokens_scored(scorer, lengths)
        return teachers, scored_tokens

    @property
    def _tokenizer(self) -> Tokenizer:
        return self.prepared.renderer.student.tokenizer

    def _to_score(self, teacher: str, rollouts: Sequence[Rollout]) -> list[ScoreRequest]:
        """What one teacher is asked of, in data order."""
        prompts = {row_prompts.row.row_id: row_prompts for row_prompts in self.prompts}
        return [
            self.prepared.turn_ends.request(rollout, teacher, prompts[rollout.key.row_id].teachers[teacher])
            for rollout in rollouts
            if teacher in prompts[rollout.key.row_id].route.teachers
        ]

    async def _sampled(self, requests: Sequence[SampleRequest]) -> tuple[list[Rollout], list[LostCompletion]]:
        """The completions that came, in the order of `requests`."""
        sampler = self.prepared.plugins.sampler
        vocabulary = vocabulary_size(self._tokenizer)
        with attribute_to(sampler, "in a probe"):
            found, lost = await sample_all(sampler, requests, vocabulary)
        return [found[request.key] for request in requests if request.key in found], lost

    async def _sampling_test(
        self, rollouts: Sequence[Rollout], params: SamplingParams
    ) -> tuple[SamplingTest | str, int]:
        """Whether next tokens come from the distribution whose logprobs they have; and how many were sampled.

        After every other prompt alone, where a first token is often certain and shows nothing, and after the others
        with the start of their completion behind them. Whatever the run asks for, the whole distribution is asked for
        here. Text: why the logprobs are of no distribution at all.
        """
        neutral = replace(params, max_tokens=1, temperature=1.0, top_p=1.0, top_k=0)
        requests: list[SampleRequest] = []
        for place, rollout in enumerate(rollouts[:NEXT_TOKENS]):
            behind = rollout.token_ids[: min(BEHIND, len(rollout.token_ids) // 2) if place % 2 else 0]
            prompt = [*rollout.request.prompt_ids.tolist(), *behind.tolist()]
            requests.extend(self._next_token(rollout.key, time, prompt, neutral) for time in range(TIMES))
        tokens, _ = await self._sampled(requests)
        groups: dict[str, list[tuple[int, float]]] = {}
        for sampled in tokens:
            token = int(sampled.token_ids[0]), float(sampled.logprobs[0])
            groups.setdefault(sampled.key.row_id, []).append(token)
        try:
            return untouched_sampling(list(groups.values())), len(tokens)
        except AlignmentError as error:
            return str(error), len(tokens)

    def _next_token(self, key: SampleKey, time: int, prompt: Sequence[int], params: SamplingParams) -> SampleRequest:
        seed = derive_seed(self.prepared.config.seed, PURPOSE, "next token", key.row_id, time)
        return SampleRequest(SampleKey(key.row_id, key.epoch, time), token_ids(prompt), seed, params)
