"""Draw docs/figures/processes.svg: the processes of a training run, and what flows between them in a step."""

from __future__ import annotations

from drawing import ACCENT, MUTED, Drawing


def draw() -> Drawing:
    """Return the figure."""
    figure = Drawing(
        920, 470, "The driver, the trainer actors and the rollout actors of a run, and the data that flows between them"
    )
    figure.box(20, 20, 250, 430, fill="#f5f7fa")
    figure.text(145, 44, "driver (rlsync/controller)", bold=True)
    figure.box(45, 60, 200, 130)
    figure.text(145, 112, "training loop")
    figure.text(145, 132, "prompts, advantages,", colour=MUTED)
    figure.text(145, 150, "parity verdict", colour=MUTED)
    figure.box(45, 250, 200, 60)
    figure.text(145, 276, "scoring threads")
    figure.text(145, 295, "rewards, environments", colour=MUTED)
    figure.box(45, 370, 200, 60)
    figure.text(145, 396, "run folder")
    figure.text(145, 415, "metrics, rollouts", colour=MUTED)

    figure.box(610, 20, 290, 150, fill="#f5f7fa")
    figure.text(635, 44, "trainer actors, one per FSDP rank", anchor="start", bold=True)
    figure.box(635, 60, 240, 90)
    figure.text(755, 92, "forward, compare bits,")
    figure.text(755, 111, "backward, update")
    figure.text(755, 135, "fp32 master weights, AdamW", colour=MUTED)

    figure.box(610, 250, 290, 200, fill="#f5f7fa")
    figure.text(635, 274, "rollout actors, one per engine", anchor="start", bold=True)
    figure.box(635, 290, 240, 60)
    figure.text(755, 316, "tensor-parallel workers")
    figure.text(755, 335, "weights, KV cache, sampling", colour=MUTED)
    figure.box(635, 378, 240, 52)
    figure.text(755, 409, "vLLM engine: scheduler")
    figure.line((755, 350), (755, 378))

    _flows(figure)
    return figure


def _flows(figure: Drawing) -> None:
    figure.arrow((245, 76), (635, 76))
    figure.text(425, 69, "1  sync; 3  packs: tokens, advantages, log-probs")
    figure.arrow((635, 140), (245, 140))
    figure.text(425, 133, "statistics, parity counts, digests")
    figure.arrow((862, 150), (862, 290), accent=True)
    figure.text(852, 205, "weights,", anchor="end", colour=ACCENT)
    figure.text(852, 223, "not through the driver", anchor="end", colour=ACCENT)
    figure.arrow((245, 175), (520, 175), (520, 392), (635, 392))
    figure.text(510, 215, "2  requests: token ids, seeds", anchor="end")
    figure.arrow((635, 418), (430, 418), (430, 280), (245, 280))
    figure.text(422, 345, "rollouts, log-probs,", anchor="end")
    figure.text(422, 363, "as they end", anchor="end")
    figure.arrow((145, 250), (145, 190))
    figure.text(153, 225, "scores", anchor="start")
    figure.arrow((45, 150), (32, 150), (32, 400), (45, 400))


if __name__ == "__main__":
    draw().save(__file__)
