"""Text through a real tokenizer, made from real questions; token ids in lists; what is too long, what is no text."""

from __future__ import annotations

import csv
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TESTS, rows_of, write_pool
from numpy.typing import NDArray

from poolscore.engine.config import Config, TextDecode, load_config, parse_config
from poolscore.engine.errors import ConfigError, PoolscoreError
from poolscore.engine.inputs.base import RowSpec
from poolscore.engine.inputs.batch import BatchDecoder
from poolscore.engine.inputs.text import TextDecoder
from poolscore.engine.prepare import prepare_job
from poolscore.engine.run.directory import RunDirectory
from poolscore.engine.score import score_pool
from poolscore.engine.worker.profile import numeric_profile

tokenizers = pytest.importorskip("tokenizers")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LENGTH = 24
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def questions(data: Path) -> list[str]:
    with gzip.open(data / "banking77" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def tokenizer(questions: list[str]) -> Any:
    """WordPiece of 400 pieces, as BERT's."""
    trained = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = tokenizers.normalizers.BertNormalizer()
    trained.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(SPECIAL), show_progress=False)
    trained.train_from_iterator(questions, trainer)
    marks = [(name, trained.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    trained.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    return trained


@pytest.fixture
def saved(tokenizer: Any, tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def decoder(**config: Any) -> TextDecoder:
    return TextDecoder(TextDecode(kind="text", column="text", **{"length": LENGTH, **config}))


def decode(texts: pa.Array | list[Any], length: int = LENGTH, **config: Any) -> tuple[NDArray[Any], dict[int, str]]:
    rows = pa.table({"text": texts})
    found = decoder(length=length, **config)
    found.check(rows.schema)
    assert found.row_spec(rows) == RowSpec((2, length), "int32")
    out = np.full((rows.num_rows, 2, length), 7, np.int32)
    return out, found.decode(rows, out)


def padded(ids: list[int], length: int = LENGTH, pad: int = 0, left: bool = False) -> list[list[int]]:
    gap, ones = [pad] * (length - len(ids)), [1] * len(ids)
    none = [0] * len(gap)
    return [gap + ids, none + ones] if left else [ids + gap, ones + none]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_ids_and_mask_are_the_tokenizers(kind: pa.DataType, questions: list[str], tokenizer: Any, saved: Path) -> None:
    texts = [text for text in questions[:300] if len(tokenizer.encode(text).ids) <= LENGTH]
    out, bad = decode(pa.array(texts, kind), tokenizer=str(saved))
    assert bad == {}
    assert out.tolist() == [padded(tokenizer.encode(text).ids) for text in texts]
    assert len({row[1].count(1) for row in out.tolist()}) > 5
    named = decoder(tokenizer=str(saved)).to_model(torch.from_numpy(out))
    assert {name: x.dtype for name, x in named.items()} == dict.fromkeys(["input_ids", "attention_mask"], torch.int64)
    assert torch.equal(torch.stack(list(named.values()), 1), torch.from_numpy(out).long())
    assert list(decoder(ids="left", mask=None).to_model(torch.from_numpy(out))) == ["left"]


def test_padding_and_truncation_are_on_the_files_side(questions: list[str], tokenizer: Any, saved: Path) -> None:
    sided = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    sided.enable_padding(direction="left", pad_id=9, pad_token="[PAD]", length=99)
    sided.enable_truncation(5, direction="left")
    sided.save(str(saved))
    out, bad = decode(questions[:50], length=12, tokenizer=str(saved), truncation=True)
    sided.no_padding()
    sided.enable_truncation(12, direction="left")
    assert bad == {}
    assert out.tolist() == [padded(sided.encode(text).ids, 12, pad=9, left=True) for text in questions[:50]]
    assert all(row[0, -1] == tokenizer.token_to_id("[SEP]") for row in out)
    assert decode(["a"], tokenizer=str(saved), pad=3)[0][0, 0, 0] == 3


def test_a_text_that_is_too_long_is_set_aside_or_cut(tokenizer: Any, saved: Path) -> None:
    long = "lost card " * 500
    tokens = len(tokenizer.encode(long).ids)
    out, bad = decode([long, "card"], tokenizer=str(saved))
    assert bad == {0: f"{tokens} tokens, more than length {LENGTH}"}
    assert not out[0].any()
    assert out[1, 1].sum() == len(tokenizer.encode("card").ids)
    out, bad = decode([long], tokenizer=str(saved), truncation=True)
    assert bad == {}
    assert out[0, 1].all()
    assert out[0, 0, -1] == tokenizer.token_to_id("[SEP]")


def test_what_is_no_text_is_set_aside(tokenizer: Any, saved: Path) -> None:
    broken = pa.array([b"card", b"\xff\xfe", None, b"", b"a\0b"], pa.binary()).view(pa.string())
    out, bad = decode(pa.chunked_array([broken.slice(0, 1), broken.slice(1)]), tokenizer=str(saved))
    assert bad == {1: "not valid UTF-8: invalid start byte at byte 0", 2: "null"}
    assert not out[1:3].any()
    assert out[3].tolist() == padded(tokenizer.encode("").ids)
    bare = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    bare.post_processor = tokenizers.processors.Sequence([])
    bare.save(str(saved))
    assert decode(["card", ""], tokenizer=str(saved))[1] == {1: "no tokens"}


@pytest.mark.parametrize("form", [pa.list_(pa.int32()), pa.large_list(pa.uint16()), pa.list_(pa.int64())])
def test_lists_of_token_ids_are_padded(form: pa.DataType) -> None:
    out, bad = decode(pa.array([[5, 6, 7], [1], [], None, [1, 2, 3, 4, 5], [1, None]], form), length=4, pad=9)
    assert bad == {2: "no tokens", 3: "null", 4: "5 tokens, more than length 4", 5: "null among the token ids"}
    assert out[:2].tolist() == [padded([5, 6, 7], 4, 9), padded([1], 4, 9)]
    assert not out[2:].any()
    assert decode(pa.array([[1, 2, 3]], form), length=2, truncation=True)[0].tolist() == [[[1, 2], [1, 1]]]


def test_token_ids_out_of_range_are_set_aside() -> None:
    _, bad = decode(pa.array([[-1, 2], [2**31], [2**31 - 1]], pa.list_(pa.int64())))
    assert bad == {0: "token ids from -1 to 2", 1: "token ids from 2147483648 to 2147483648"}


def test_other_columns_are_refused(saved: Path) -> None:
    for kind in (pa.binary(), pa.list_(pa.int8()), pa.dictionary(pa.int8(), pa.string())):
        with pytest.raises(ConfigError, match=r"^pool.input: column 'text' has type .* with a tokenizer reads text$"):
            decoder(tokenizer=str(saved)).check(pa.schema([("text", kind)]))
    for kind in (pa.string(), pa.list_(pa.float32()), pa.list_(pa.string())):
        with pytest.raises(ConfigError, match=r"without a tokenizer reads lists of token ids; for text give"):
            decoder().check(pa.schema([("text", kind)]))


def test_tokenizers_that_are_none_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = pa.schema([("text", pa.string())])
    with pytest.raises(ConfigError, match=r"^pool.decode.length: 2 leaves no room beside 2 special tokens$"):
        decoder(tokenizer=str(saved), length=2).check(schema)
    with pytest.raises(ConfigError, match=r"^pool.decode.tokenizer: .*missing.json cannot be read"):
        decoder(tokenizer=str(saved.with_name("missing.json"))).check(schema)
    saved.write_text('{"version": "1.0"}')
    with pytest.raises(ConfigError, match=r"^pool.decode.tokenizer: .*tokenizer.json is no tokenizer.json"):
        decoder(tokenizer=str(saved)).check(schema)
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'poolscore\[text\]'"):
        decoder(tokenizer=str(saved)).check(schema)


def test_threads_change_nothing(questions: list[str], saved: Path) -> None:
    batches = []
    for threads in (1, 4):
        text = decoder(tokenizer=str(saved))
        batch = BatchDecoder({"t": text}, {"t": RowSpec((2, LENGTH), "int32")}, 512, CPU, threads)
        batches.append(batch.decode(rows_of(text=questions[:500])))
    (one, one_bad), (four, four_bad) = batches
    assert one_bad == four_bad
    assert 0 < len(one_bad) < 400
    assert all(torch.equal(one[name], four[name]) for name in ("input_ids", "attention_mask"))


def config_of(pool: Path, tmp_path: Path, decode: dict[str, Any]) -> Config:
    return parse_config(
        {
            "pool": {"uri": str(pool), "input": "text", "decode": {"kind": "text", **decode}},
            "model": {
                "source": "real_nets:bert_of_words",
                "path": str(TESTS),
                "weights": str(tmp_path / "bert.pt"),
                "task": "multiclass",
            },
            "passes": {"count": 4},
            "select": {"k": 5},
            "run": {
                "dir": str(tmp_path / "run"),
                "executor": "local",
                "verify_rows": 0,
                "batch_size": 16,
                "max_bad_fraction": 0.5,
            },
        }
    )


@pytest.fixture
def bert_config(questions: list[str], saved: Path, tmp_path: Path) -> Callable[..., Config]:
    """A pool of questions, and a small BERT with random weights."""
    import real_nets

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(real_nets.bert_of_words().state_dict(), tmp_path / "bert.pt")
    texts = [*questions[:60], None, "lost card " * 50]
    pool = write_pool(tmp_path / "pool", pa.table({"text": texts}))
    return lambda **decode: config_of(pool, tmp_path, {"tokenizer": str(saved), "length": LENGTH, **decode})


def written(config: Config, what: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(Path(config.run.dir).glob(f"{what}/*.parquet"))])


def test_bert_scores_questions(bert_config: Callable[..., Config], questions: list[str], tokenizer: Any) -> None:
    config = bert_config()
    score_pool(config)
    run = RunDirectory(config.run.dir)
    scores, errors = written(config, "scores"), written(config, "errors")
    reasons = dict(zip(errors["row_id"].to_pylist(), errors["error"].to_pylist(), strict=True))
    long = {i for i, text in enumerate(questions[:60]) if len(tokenizer.encode(text).ids) > LENGTH}
    assert set(reasons) == {*long, 60, 61}
    assert reasons[60] == "null"
    assert reasons[61].endswith(f"tokens, more than length {LENGTH}")
    assert set(errors["stage"].to_pylist()) == {"decode"}
    assert scores.num_rows == 62 - len(reasons)
    bald = scores["bald"].to_numpy()
    assert np.isfinite(bald).all()
    assert bald.max() - bald.min() > 1e-4
    profile = run.info["profile"]
    assert {"tokenizers", "tokenizer of text"} <= set(profile)


def test_padding_does_not_reach_the_model(bert_config: Callable[..., Config], questions: list[str]) -> None:
    """The attention mask arrives: texts padded to another length have the same logits."""
    found = []
    for length in (LENGTH, LENGTH + 8):
        scorer = prepare_job(bert_config(length=length)).scorer
        inputs, bad = scorer.decoder.decode(rows_of(text=[text for text in questions if len(text) < 50][:16]))
        assert bad == {}
        found.append(scorer.model.without_dropout(inputs))
    assert found[0].std(0).min() > 1e-2  # the questions differ
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_another_tokenizer_is_another_profile(bert_config: Callable[..., Config], tokenizer: Any, saved: Path) -> None:
    config = bert_config()
    before = numeric_profile(config, CPU, {})
    score_pool(config)
    other = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    other.add_tokens(["another"])
    other.save(str(saved))
    assert numeric_profile(config, CPU, {})["tokenizer of text"] != before["tokenizer of text"]
    (Path(config.run.dir) / "_SUCCESS").unlink()
    shutil.rmtree(Path(config.run.dir) / "_log")  # as if it had been stopped before its first shard
    with pytest.raises(PoolscoreError, match=r"the tokenizers .decode.tokenizer is another file"):
        score_pool(config)


def test_the_tokenizers_place_is_relative_to_the_configuration(tmp_path: Path) -> None:
    text = """
pool: {uri: pool, inputs: {a: {kind: text, column: t, tokenizer: sub/t.json, length: 9}, b: {kind: tensor, column: b}}}
model: {source: "m:f", task: binary}
select: {k: 1}
run: {dir: run}
"""
    (tmp_path / "c.yaml").write_text(text)
    decode = load_config(tmp_path / "c.yaml").pool.inputs["a"]
    assert isinstance(decode, TextDecode)
    assert decode.tokenizer == str(tmp_path / "sub" / "t.json")
    for change, message in (
        ("pool.inputs.b.kind=text", r"pool.inputs.b.length"),
        ("pool.inputs.a.mask=b", r"inputs.b: 'b' is given by inputs.a as well"),
        ("pool.inputs.a.mask=input_ids", r"ids and mask are both named 'input_ids'"),
        ("pool.inputs.a.ids=no name", r"'no name' is no name of a keyword argument"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(tmp_path / "c.yaml", [change])
