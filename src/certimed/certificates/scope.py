"""What a certificate covers: the words used on every certificate, and the sentences behind them."""

from __future__ import annotations

END_TO_END = "end-to-end"
PROMPT_FROZEN = "prompt frozen at x"

MODEL_INPUT = "model input"
NATIVE = "native"

SCOPES = {
    END_TO_END: "the whole pipeline from the certified space to the answer",
    PROMPT_FROZEN: (
        "the classifier with the prompt that was tuned on this very image, held fixed; an attacked image would be "
        "tuned to another prompt, and nothing is proved about that pipeline"
    ),
}
SPACES = {
    MODEL_INPUT: "the image after resizing and cropping, before mean and std, values in [0, 1]",
    NATIVE: "the image at its native resolution, values in [0, 1], resizing inside the certified model",
}
