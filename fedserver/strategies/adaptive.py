"""Options that the adaptive optimisers share: Reddi et al., 2021, https://arxiv.org/abs/2003.00295.

Flower's ``eta_l`` is not among them: nothing in Flower reads it, the clients' learning rate is the
clients' own.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from pydantic import Field

PAPER: Final = "https://arxiv.org/abs/2003.00295"

Rate: TypeAlias = Annotated[float, Field(gt=0, description="server's learning rate")]
FirstDecay: TypeAlias = Annotated[
    float, Field(ge=0, lt=1, description="share of the old first moment that is kept")
]
SecondDecay: TypeAlias = Annotated[
    float, Field(ge=0, lt=1, description="share of the old second moment that is kept")
]
Adaptivity: TypeAlias = Annotated[
    float, Field(gt=0, description="added to the root of the second moment; greater: less adaptive")
]
