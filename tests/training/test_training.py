"""Training: it learns, it can be stopped and resumed, and bad input loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from intsim.cli import main
from intsim.models.architecture import Architecture, AttentionKind, NormKind, Positions, Task
from intsim.models.vocabulary import BEGIN, END, PAD, Vocabulary

torch = pytest.importorskip("torch", reason="trains")

from intsim.training import batches, loop, network  # noqa: E402

WORDS = ["a dog runs", "two dogs run", "the man sleeps", "a woman reads", "the cat sees a dog"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.txt"
    file.write_text("".join(f"{a} {i}\t{a.upper()} {i}\n" for i in range(60) for a in WORDS), encoding="utf-8")
    return file


def train(kind: str, *arguments: object) -> Result:
    always = ("--size", "smoke", "--device", "cpu", "--warmup", 2, "--every", 4)
    return CliRunner().invoke(main, ["train", kind, *map(str, (*arguments, *always))])


def loss(folder: Path) -> list[float]:
    return [value for _, value in json.loads((folder / "training.json").read_text())["valid_nats_per_token"]]


@pytest.mark.parametrize("norm", ["l1", "standard"])
def test_a_translation_model_learns_and_is_written(norm: str, pairs: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    out = tmp_path / "run"
    done = train("translation", "--pairs", pairs, "--out", out, "--steps", 24, "--batch", 600, "--norm", norm)
    assert done.exit_code == 0, done.output
    assert "finished" in done.output
    assert loss(out)[-1] < 0.9 * loss(out)[0]
    shape = Architecture.read(out / "config.json")
    assert (shape.task, shape.norm) == (Task.TRANSLATION, NormKind(norm))
    tensors = load_file(out / "model.safetensors")
    assert tensors["embedding.weight"].shape == (shape.vocabulary, shape.width)
    assert tensors["decoder.0.cross_attention.shift"].shape == (shape.heads,)
    assert all(np.isfinite(t).all() for t in tensors.values())
    assert json.loads((out / "training.json").read_text())["recipe"]["shift"] == 3.0


def test_a_language_model_learns(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 200)
    done = train("lm", "--text", text, "--valid", text, "--out", tmp_path / "run", "--steps", 16, "--batch", 4)
    assert done.exit_code == 0, done.output
    assert loss(tmp_path / "run")[-1] < loss(tmp_path / "run")[0]


def test_b_begins_at_the_degree_unless_told(pairs: Path, tmp_path: Path) -> None:
    for given, wanted in (((), 2.0), (("--shift", 0.5), 0.5)):
        out = tmp_path / f"run{wanted}"
        more = ("--steps", 1, "--batch", 600, "--degree", 2, *given)
        assert train("translation", "--pairs", pairs, "--out", out, *more).exit_code == 0
        assert json.loads((out / "training.json").read_text())["recipe"]["shift"] == wanted


def test_a_run_goes_on_where_it_stopped(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train("translation", "--pairs", pairs, "--out", out, "--steps", 12, "--batch", 600, "--minutes", 1e-9)
    assert "stopped at step 1; the same command goes on from there" in first.output
    second = train("translation", "--pairs", pairs, "--out", out, "--steps", 12, "--batch", 600)
    assert "resumed at step 1" in second.output
    assert "finished" in second.output
    before = (out / "model.safetensors").read_bytes()
    again = train("translation", "--pairs", pairs, "--out", out, "--steps", 12, "--batch", 600)
    assert "resumed at step 12" in again.output
    assert (out / "model.safetensors").read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train("translation", "--pairs", pairs, "--out", out, "--steps", 4, "--batch", 600).exit_code == 0
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    other = train("translation", "--pairs", pairs, "--out", out, "--steps", 5, "--batch", 600)
    assert other.exit_code == 2
    assert "is of a run with another recipe" in other.output
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before


def test_bad_input_is_named(pairs: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    assert "give --pairs FILE, or all of --source" in train("translation", *out).output
    short = tmp_path / "short.txt"
    short.write_text("one\n")
    lines = train(
        "translation", "--source", pairs, "--target", short, "--valid-source", short, "--valid-target", short, *out
    )
    assert "300 lines" in lines.output
    assert "line i of both belongs together" in lines.output
    assert "line 1: source TAB target is needed" in train("translation", "--pairs", short, *out).output
    if not torch.cuda.is_available():
        done = CliRunner().invoke(
            main, ["train", "lm", "--text", str(pairs), "--valid", str(pairs), "--out", str(out[1]), "--device", "cuda"]
        )
        assert "finds no CUDA GPU: use --device cpu" in done.output


def shape(**changes: object) -> Architecture:
    given: dict[str, object] = {
        "task": Task.TRANSLATION, "width": 16, "layers": 2, "heads": 2, "feed": 24, "vocabulary": 40, "positions": 24,
    }  # fmt: skip
    return Architecture(**{**given, **changes})  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize("attention", list(AttentionKind))
@pytest.mark.parametrize("first", [True, False])
def test_nothing_sees_the_future_or_padding(attention: AttentionKind, first: bool) -> None:
    torch.manual_seed(0)
    model = network.Network(shape(attention=attention, norm_first=first)).eval()
    source, target = torch.randint(4, 40, (1, 7)), torch.randint(4, 40, (1, 9))
    with torch.no_grad():
        whole = model(target, source)
        changed = target.clone()
        changed[0, 5:] = 4
        assert torch.equal(model(changed, source)[0, :5], whole[0, :5])
        padded = torch.cat([source, torch.full((1, 3), PAD)], 1)
        torch.testing.assert_close(model(target, padded), whole, rtol=0, atol=1e-5)
        other = source.clone()
        other[0, 0] = (other[0, 0] - 4 + 1) % 36 + 4
        assert not torch.equal(model(target, other), whole)


def test_b_and_the_gain_begin_where_it_is_said() -> None:
    made = dict(network.Network(shape(), begin=network.Beginning(shift=2.5, gain=0.5)).named_parameters())
    begun = {b for name, p in made.items() if name.endswith("shift") for b in p.tolist()}
    assert begun == {2.5}
    assert sum(name.endswith("shift") for name in made) == 6
    gains = [p.tolist() for name, p in made.items() if name.endswith("norm.weight")]
    assert len(gains) == 12
    assert {g for row in gains for g in row} == {0.5}


def test_the_l1_norm_of_normal_values_begins_with_the_deviation_of_layer_norm() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4096)
    made = network.L1Norm(4096, network.NORMAL_GAIN)(x).detach().std(-1, correction=0)
    assert float((made - 1).abs().max()) < 4 / 4096**0.5  # four standard errors


def test_polynomial_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    block = network.Attention(shape(), 0.0, network.Beginning()).double()
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    q, k, v = ((layer(x)[0]).detach().numpy().reshape(5, 2, 8) for layer in (block.query, block.key, block.value))
    rows = np.zeros((5, 2, 8))
    for h in range(2):
        for i in range(5):
            t = np.array([q[i, h] @ k[j, h] for j in range(i + 1)]) / np.sqrt(8)
            p = np.maximum(t + 1.0, 0) ** 3 + 0.05
            rows[i, h] = p @ v[: i + 1, h] / (p.sum() + network.EPSILON)
    wanted = block.out(torch.tensor(rows.reshape(1, 5, 16)))
    torch.testing.assert_close(block(x, x, seen), wanted, rtol=0, atol=1e-6)  # the floor is a float32 0.05


def test_l1_norm_is_the_formula() -> None:
    x = torch.tensor([[1.0, 2.0, 6.0]])
    made = network.L1Norm(3, 1.0)(x)
    torch.testing.assert_close(made, torch.tensor([[-2.0, -1.0, 3.0]]) / 2, rtol=0, atol=1e-4)  # epsilon 1e-5 of 2


def test_batches_hold_every_pair_once_inside_the_limit() -> None:
    source = [[5] * (i % 13 + 1) for i in range(50)]
    target = [[6] * (i % 7 + 1) + [10 + i] for i in range(50)]
    made = batches.Pairs(source, target, 120).batches()
    seen = sorted(int(row[row >= 10][0]) for _, t in made for row in t)
    assert seen == list(range(10, 60))
    assert [len(t) for _, t in batches.Pairs([], [], 120).batches()] == []
    for s, t in made:
        assert s is not None
        assert max(s.numel(), t[:, 1:].numel()) <= 120
        assert (t[:, 0] == BEGIN).all()
        assert ((s == END).sum(1) == 1).all()


def test_the_share_of_the_rate() -> None:
    recipe = loop.Recipe(steps=110, rate=1.0, warmup=10, dropout=0.0, smoothing=0.0, decay=0.0)
    assert [loop._share(s, recipe) for s in (1, 5, 10, 60, 110)] == pytest.approx([0.1, 0.5, 1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="positive"):
        loop.Recipe(steps=0, rate=1.0, warmup=1, dropout=0.0, smoothing=0.0, decay=0.0)


def test_sinusoids() -> None:
    table = network.sinusoids(3, 4)
    np.testing.assert_allclose(table[2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)], atol=1e-7)
    network.Network(shape(position_kind=Positions.SINUSOIDAL))(torch.ones(1, 3, dtype=torch.long),
                                                              torch.ones(1, 3, dtype=torch.long))  # fmt: skip


def test_a_vocabulary_says_back_what_it_read() -> None:
    made = Vocabulary.learn(["ein Hund läuft", "a dog runs"] * 5, 300)
    text = "ein Hündchen läuft"
    assert made.decode([BEGIN, *made.encode([text])[0], END]) == text
    with pytest.raises(ValueError, match="at least 260 tokens"):
        Vocabulary.learn([], 100)
    with pytest.raises(ValueError, match="cannot be read"):
        Vocabulary("{}")
