"""Write a language model of half a megabyte with random weights, for tests against a real LM server.

    python scripts/tiny_model.py OUT.gguf

It is a Llama of two layers whose tokenizer knows 256 bytes, the printable ASCII characters and a few
hundred English words. It talks word salad; with a grammar or a JSON schema it does so in any format.

Random weights alone would emit random bytes, most of which are no UTF-8. So the first dimension of the
residual stream is a constant that no layer writes to: its column in the output matrix is then a bias,
which makes words likely, single characters rarer and bytes all but impossible where they are not forced.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np

_WIDTH, _HIDDEN, _LAYERS, _HEADS = 64, 128, 2, 4
_CONTEXT = 8192
_CONSTANT = 6.0
"""The value of the constant dimension, against a variance of 1 in each other one."""
_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_WORDS = (
    "the of and to in a is that it for was on are as with his they at be this from have or by one had not but what "
    "all were when we there can an your which their said if do will each about how up out them then she many some so "
    "these would other into has more her two like him see time could no make than first been its who now people my "
    "made over did down only way find use may water long little very after words called just where most know get "
    "through back much before go good new write our used me man too any day same right look think also around another "
    "came come work three word must because does part even place well such here take why things help put years "
    "different away again off went old number great tell men say small every found still between name should home big "
    "give air line set own under read last never us left end along while might next sound below saw something thought "
    "both few those always looked show large often together asked house world going want school important until form "
    "food keep children feet land side without boy once animals life enough took sometimes four head above kind began "
    "almost live page got earth need far hand high year mother light parts country father let night following picture"
).split()
_ENDINGS = [".", ",", "ing", "ed", "er", "s", "ly", "é", "ö", "—"]


def main() -> None:
    """Write the model to the path that the command line names."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: tiny_model.py OUT.gguf")
    write(Path(sys.argv[1]))


def write(path: Path) -> None:
    """Write the model; the same bytes every time. A reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{np.random.default_rng().integers(1 << 32):x}.part")
    writer = gguf.GGUFWriter(part, "llama")
    biases = _add_vocabulary(writer)
    _add_shape(writer, len(biases))
    _add_weights(writer, biases)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)


def _add_vocabulary(writer: gguf.GGUFWriter) -> list[float]:
    """The tokenizer; returns each token's bias."""
    kind = gguf.TokenType
    tokens: list[tuple[str, float, int, float]] = [
        ("<unk>", 0.0, kind.UNKNOWN, -8.0),
        ("<s>", 0.0, kind.CONTROL, -8.0),
        ("</s>", 0.0, kind.CONTROL, 0.3),
    ]
    tokens += [(f"<0x{byte:02X}>", 0.0, kind.BYTE, -6.0) for byte in range(256)]
    tokens += [("▁" if code == 32 else chr(code), -1000.0, kind.NORMAL, -2.0) for code in range(32, 127)]
    known = {token[0] for token in tokens}
    words = [f"▁{word}" for word in _WORDS] + _ENDINGS
    tokens += [(word, -float(rank), kind.NORMAL, 0.5) for rank, word in enumerate(words) if word not in known]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token[0] for token in tokens])
    writer.add_token_scores([token[1] for token in tokens])
    writer.add_token_types([int(token[2]) for token in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(_TEMPLATE)
    return [token[3] for token in tokens]


def _add_shape(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    writer.add_name("tiny-random")
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_weights(writer: gguf.GGUFWriter, biases: list[float]) -> None:
    rng = np.random.default_rng(7)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.standard_normal((rows, columns)).astype(np.float32) / np.sqrt(columns)

    def silent_first(weights: np.ndarray) -> np.ndarray:
        weights[0, :] = 0.0
        return weights

    embedding = rng.standard_normal((len(biases), _WIDTH)).astype(np.float32)
    embedding[:, 0] = _CONSTANT
    output = matrix(len(biases), _WIDTH)
    output[:, 0] = biases
    ones = np.ones(_WIDTH, dtype=np.float32)
    writer.add_tensor("token_embd.weight", embedding.astype(np.float16))
    for layer in range(_LAYERS):
        name = f"blk.{layer}."
        writer.add_tensor(name + "attn_norm.weight", ones)
        for part in ("q", "k", "v"):
            writer.add_tensor(f"{name}attn_{part}.weight", matrix(_WIDTH, _WIDTH).astype(np.float16))
        writer.add_tensor(name + "attn_output.weight", silent_first(matrix(_WIDTH, _WIDTH)).astype(np.float16))
        writer.add_tensor(name + "ffn_norm.weight", ones)
        for part in ("gate", "up"):
            writer.add_tensor(f"{name}ffn_{part}.weight", matrix(_HIDDEN, _WIDTH).astype(np.float16))
        writer.add_tensor(name + "ffn_down.weight", silent_first(matrix(_WIDTH, _HIDDEN)).astype(np.float16))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output.astype(np.float16))


if __name__ == "__main__":
    main()
