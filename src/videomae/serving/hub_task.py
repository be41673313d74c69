"""The Hub's task "video-classification", and what else is asked about one clip of a video."""

from typing import TYPE_CHECKING, Any

from videomae.serving.model import apply
from videomae.serving.parameters import Classify, Explain, Place, Reconstruct
from videomae.serving.service import Service, best

if TYPE_CHECKING:
    from starlette.requests import Request


class ClipQuestions:
    """Answers about one clip of a video.

    Args:
        service: what answers.
    """

    def __init__(self, service: Service) -> None:
        self.service, self.model = service, service.model

    async def classify(self, request: "Request") -> list[dict[str, Any]]:
        """Say what a video shows."""
        async with self.service.clip(request, Classify) as (parameters, (_, clip)):
            logits = await self.service.batcher(clip)
            return best(apply(parameters.function_to_apply, logits), self.model.classes, parameters.top_k)

    async def embed(self, request: "Request") -> dict[str, Any]:
        """Give the features of a clip."""
        async with self.service.clip(request, Place) as (_, (about, clip)):
            vector = await self.service.batcher.alone(self.model.embedding, clip)
            return {"embedding": vector.tolist(), "times": about["times"]}

    async def explain(self, request: "Request") -> dict[str, Any]:
        """Say where in a clip the model finds a class."""
        async with self.service.clip(request, Explain) as (parameters, (about, clip)):
            return about | await self.service.batcher.alone(self.model.explain, clip, parameters.label)

    async def reconstruct(self, request: "Request") -> dict[str, Any]:
        """Hide a part of a clip and show what the model makes of it."""
        async with self.service.clip(request, Reconstruct) as (p, (about, clip)):
            found = await self.service.batcher.alone(self.model.reconstruct, clip, p.mask, p.mask_ratio, p.seed)
            return about | found
