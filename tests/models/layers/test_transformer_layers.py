"""Transformer layers: attention equals torch's own, patches cover the image, positions follow the grid."""

import pytest
import torch
from torch import nn

from terrazzo.errors import UserError
from terrazzo.models.layers import MultiheadAttention, PatchEmbed, drop_path_rates, resize_position_embedding, to_map

torch.set_num_threads(1)


@pytest.mark.parametrize("sources", ["self", "shared", "apart"])
def test_attention_equals_that_of_torch(sources):
    torch.manual_seed(0)
    ours = MultiheadAttention(12, 3)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    ours.attn.load_state_dict(theirs.state_dict())
    query, key, value = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    given = {"self": (query,), "shared": (query, key), "apart": (query, key, value)}[sources]
    full = {"self": (query, query, query), "shared": (query, key, key), "apart": (query, key, value)}[sources]
    torch.testing.assert_close(ours(*given), theirs(*full)[0])


def test_attention_ignores_what_the_mask_forbids():
    attention = MultiheadAttention(8, 2).eval()
    query, key = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    allowed = torch.tensor([True, True, False, False])
    masked = attention(query, key, mask=allowed.expand(1, 1, 3, 4))
    torch.testing.assert_close(masked, attention(query, key[:, :2]))


@pytest.mark.parametrize(("size", "grid"), [((32, 48), (2, 3)), ((33, 47), (3, 3)), ((5, 7), (1, 1))])
@pytest.mark.parametrize("padding", ["corner", "same"])
def test_patches_cover_images_of_any_size(size, grid, padding):
    tokens, found = PatchEmbed(embed_dims=8, kernel_size=16, padding=padding)(torch.rand(2, 3, *size))
    assert found == grid
    assert tokens.shape == (2, grid[0] * grid[1], 8)


def test_an_unknown_padding_is_an_error():
    with pytest.raises(UserError, match="'corner' or 'same'"):
        PatchEmbed(padding="reflect")


def test_positions_are_resized_and_the_extra_token_is_kept():
    embedding = torch.randn(1, 1 + 4 * 4, 6)
    assert resize_position_embedding(embedding, (4, 4), (4, 4)) is embedding
    other = resize_position_embedding(embedding, (4, 4), (2, 8))  # as many tokens on another grid
    assert other.shape == (1, 17, 6)
    assert torch.equal(other[:, 0], embedding[:, 0])
    assert not torch.allclose(other[:, 1:], embedding[:, 1:])


def test_tokens_become_a_map_row_by_row():
    tokens = torch.arange(6.0).view(1, 6, 1)
    assert to_map(tokens, (2, 3)).tolist() == [[[[0, 1, 2], [3, 4, 5]]]]


def test_drop_path_grows_with_depth():
    assert drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0]
