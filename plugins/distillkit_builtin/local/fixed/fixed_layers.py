"""Layers of a cache whose tensors never move: a step writes its token's column, and reads the whole length.

transformers' own static layers for windows count tokens in Python and move the whole window at each token. Here a layer
with a window keeps every token, as others do, and transformers' masks for windows hide those that it must not read.
"""

from collections.abc import Mapping

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, LinearAttentionLayer


class FixedKeys(CacheLayerMixin):
    """Keys and values [rows, heads, length, d] of all tokens."""

    is_compileable = True

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor, *, sliding: bool) -> None:
        """`place` [1] is the column of the step's token, the same for all layers; `sliding`: masks are for a window."""
        self.keys, self.values, self.place = keys, values, place
        self.kept = keys, values
        """The same, for whoever need not ask whether they are there."""
        self.is_sliding, self.is_initialized, self.device = sliding, True, keys.device
        self.written = False
        """Whether this step's token is there already."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the tensors are there."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write one token [rows, heads, 1, d] each, and give all keys and values."""
        for whole, states in zip(self.kept, (key_states, value_states), strict=True):
            whole.index_copy_(2, self.place, states)
        self.written = True
        return self.kept

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The length, and the column of the first key: 0."""
        return self.kept[0].shape[2], 0

    def get_seq_length(self) -> Tensor:  # type: ignore[override] # as transformers' static layers
        """[]: how many columns hold tokens; a tensor, as transformers' static layers give."""
        return self.place[0] + 1 if self.written else self.place[0]

    def get_max_length(self) -> int:
        """How many tokens there is memory for."""
        return self.kept[0].shape[2]


class FixedStates(LinearAttentionLayer):
    """States of a recurrent layer, which have one size whatever was read."""

    def __init__(
        self, conv: Mapping[int, Tensor], recurrent: Mapping[int, Tensor], previous: Mapping[int, bool]
    ) -> None:
        """States [rows, ...] by their number; `previous` says of each number whether the layer counts it as read."""
        LinearAttentionLayer.__init__(self, number_of_states=len(previous))
        self._conv, self._recurrent = dict(conv), dict(recurrent)
        self.conv_states.update(conv)
        self.recurrent_states.update(recurrent)
        self.is_conv_states_initialized.update(dict.fromkeys(conv, True))
        self.is_recurrent_states_initialized.update(dict.fromkeys(recurrent, True))
        self.conv_kernel_size.update({number: state.shape[-1] for number, state in conv.items()})
        self.has_previous_state.update(previous)
        for state in conv.values():
            vars(self).update(dtype=state.dtype, device=state.device)

    def settle(self) -> None:
        """Bring home states that the layer put into tensors of its own."""
        for homes, states in ((self._conv, self.conv_states), (self._recurrent, self.recurrent_states)):
            for number, home in homes.items():
                state = states[number]
                if state is not None and state is not home:
                    home.copy_(state)
                    states[number] = home


class FixedKeysAndStates(FixedStates, FixedKeys):  # type: ignore[misc, override] # as transformers has its own
    """Both, of a layer that attends and has a state."""

    def __init__(self, keys: FixedKeys, states: FixedStates) -> None:
        """Of the two."""
        FixedKeys.__init__(self, *keys.kept, keys.place, sliding=keys.is_sliding)
        FixedStates.__init__(self, states._conv, states._recurrent, states.has_previous_state)
        vars(self).update(device=keys.device)

    def lazy_initialization(self, *_: object, **__: object) -> None:
        """Nothing: the tensors are there."""

    def get_max_length(self) -> int:
        """How many tokens there is memory for."""
        return FixedKeys.get_max_length(self)
