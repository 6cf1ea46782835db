"""A model behind an endpoint is asked once for each image, whatever goes wrong on the way."""

import io
import json

import pytest
from PIL import Image

pytest.importorskip("openai")

from fgclip_fast.curate import prompts, run, texts, writing
from fgclip_fast.curate.__main__ import main
from fgclip_fast.curate.captions import SHORT, Captions
from fgclip_fast.curate.chat_negatives import TOO_FEW, ChatNegatives
from fgclip_fast.curate.folder import FAILED, OutputFolder, rows_of
from fgclip_fast.curate.lexicon.truth import is_true_of
from fgclip_fast.curate.models import endpoint
from fgclip_fast.curate.models.chat import CUT
from fgclip_fast.curate.models.chat_model import Chat
from fgclip_fast.curate.models.pixels import sendable
from fgclip_fast.curate.units import shards_of
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.scenes.write import record_of, scene_of
from tests.curate.shards import contents, records, region, write
from tests.curate.stub import no_trouble


@pytest.fixture
def units(server, tmp_path):
    """Two shards of scenes without texts; every third has an alt text."""
    return scenes_without_texts(server, tmp_path / "mine")


def scenes_without_texts(server, folder):
    for shard in range(2):
        with ShardWriter(folder / f"a-{shard}.tar") as target:
            for i, image in [*server.jpegs.items()][5 * shard : 5 * shard + 5]:
                beside = {} if i % 3 else {"txt": f"alt text {i}".encode()}
                target.write(f"{i}", jpg=image, **beside)
    return shards_of(sorted(folder.glob("*.tar")))


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """The shards of a run in which nothing goes wrong."""
    folder = tmp_path_factory.mktemp("whole")
    server.forget()
    run(captions(server), scenes_without_texts(server, folder / "mine"), folder / "out")
    return contents(folder / "out")


def captions(stub, **settings):
    chat = {"concurrency": 4, "retries": 3, "asks": 2} | settings.pop("chat", {})
    return Captions(chat=Chat(model="stub", url=stub.url, **chat), language="", **settings)


def test_each_image_gets_a_caption_and_keeps_its_alt_text(stub, units, tmp_path):
    stub.delay = 0.05
    counts = run(captions(stub), units, tmp_path / "out")
    for i, fields in enumerate(records(tmp_path / "out")):
        true = record_of(scene_of("train", i), "train", i)
        assert fields["caption"] == true["caption"]
        assert fields["short_caption"] == (true["short_caption"] if i % 3 else f"alt text {i}")
    assert counts["captions"] == counts["requests"] == 9 and counts["short captions written"] == 6
    assert counts["tokens in"] == 900 and counts["tokens out"] == 450
    assert Chat(price_in=2.0, price_out=10.0).cost(counts) == pytest.approx(0.0063)
    assert 1 < stub.most_at_once <= 4


def test_faults_that_pass_cost_nothing_but_other_requests(stub, units, whole, tmp_path):
    troubles = ["429", "500", "slow", "cut", "broken", "empty", "refusal", "loop"]
    seen = {}

    def at_first(number, question):
        return troubles.pop() if troubles and seen.setdefault(question, number) == number else ""

    stub.trouble = at_first
    run(captions(stub, chat={"timeout": 1.5, "retries": 6}), units, tmp_path / "out")
    assert contents(tmp_path / "out") == whole and not troubles


def test_faults_that_stay_cost_their_image_until_it_is_tried_again(stub, units, whole, tmp_path):
    causes = {
        "broken": CUT, "empty": texts.EMPTY, "refusal": texts.REFUSAL, "loop": texts.LOOP, "500": endpoint.NO_ANSWER,
    }  # fmt: skip
    bad = dict(zip(sorted(stub.images), causes, strict=False))
    stub.trouble = lambda number, question: bad.get(question, "")
    stage = captions(stub, chat={"retries": 0})
    counts = run(stage, units, tmp_path / "out")
    assert all(counts[f"records failed: {cause}"] == 1 for cause in causes.values())
    assert len(records(tmp_path / "out")) == 4
    stub.forget()
    assert run(stage, units, tmp_path / "out")["records failed"] == 5 and not stub.answered
    assert not run(stage, units, tmp_path / "out", retry_failed=True)["records failed"]
    assert stub.answered == dict.fromkeys(bad, 1) and contents(tmp_path / "out") == whole


def test_another_language_is_asked_for_again(stub, units, tmp_path):
    pytest.importorskip("py3langid")
    stub.trouble = lambda number, question: "language"
    stage = Captions(chat=Chat(model="stub", url=stub.url, asks=2))
    counts = run(stage, units[:1], tmp_path / "out")
    assert counts[f"records failed: {texts.LANGUAGE}"] == 5 and counts["requests"] == 10


def test_what_was_answered_before_a_stop_is_not_asked_again(stub, units, whole, tmp_path, monkeypatch):
    real = writing.outcome_of

    async def stopped(function, item):
        if len(stub.answered) == 7:
            raise KeyboardInterrupt
        return await real(function, item)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "outcome_of", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(captions(stub, chat={"concurrency": 1}), units, tmp_path / "out")
    assert [*contents(tmp_path / "out")] == ["a-0.tar"]
    counts = run(captions(stub), units, tmp_path / "out")
    assert set(stub.answered.values()) == {1} and len(stub.answered) == 9
    assert contents(tmp_path / "out") == whole and counts["tokens in"] == 900


def test_a_server_that_is_down_or_refuses_the_model_ends_the_run(stub, units, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint, "_ALL_FAILED", 3)
    stage = Captions(chat=Chat(model="stub", url="http://127.0.0.1:9/v1", retries=0))
    with pytest.raises(OSError, match=r"has failed 3 times running .* the same command goes on"):
        run(stage, units, tmp_path / "out")
    with pytest.raises(ValueError, match=r"chat.model must name the server's model"):
        run(Captions(), units, tmp_path / "none")


def test_captions_that_records_bring_are_kept(stub, tmp_path):
    fields = {"caption": "A long caption of its own.", "short_caption": "short"}
    units = shards_of([write(tmp_path / "a.tar", fields, images=[stub.jpegs[0]])])
    assert run(captions(stub), units, tmp_path / "kept")["records that kept their caption"] == 1
    assert records(tmp_path / "kept") == [fields]
    run(captions(stub, replace=True), units, tmp_path / "new")
    (new,) = records(tmp_path / "new")
    assert new["caption"] != fields["caption"] and new["short_caption"] == "short"


def test_a_caption_of_few_words_is_refused(stub, units, tmp_path):
    counts = run(captions(stub, fewest_words=500), units, tmp_path / "out")
    assert counts[f"records failed: {SHORT}"] == 9


def test_prompts_can_be_edited_and_an_edit_needs_another_folder(stub, units, tmp_path, capsys):
    main(["prompts", str(tmp_path / "prompts")])
    assert {path.stem for path in (tmp_path / "prompts").iterdir()} == set(prompts.NAMES)
    own = captions(stub, prompts=tmp_path / "prompts")
    run(own, units, tmp_path / "out")
    (tmp_path / "prompts" / "long_caption.txt").write_text("Say what there is.")
    with pytest.raises(ValueError, match=r"other shards or settings \(prompts\)"):
        run(own, units, tmp_path / "out")
    (tmp_path / "prompts" / "negatives.txt").write_text("$text $count $changes $colour")
    with pytest.raises(ValueError, match=r"may use \$text, \$count, \$changes, and \$\$ for a dollar, got 'colour'"):
        prompts.prompt("negatives", tmp_path / "prompts", text="a", count=1, changes="b")
    (tmp_path / "prompts" / "negatives.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"negatives.txt must hold \$text"):
        prompts.prompt("negatives", tmp_path / "prompts", text="a", count=1, changes="b")
    with pytest.raises(ValueError, match="--prompts must be a folder with both_captions"):
        captions(stub, prompts=tmp_path / "nowhere").identity()


def test_a_model_writes_negatives_and_those_that_are_true_are_left_out(stub, tmp_path):
    own = region("a blue hat", short_expr_negs={"0": "a red hat"}, flag_short_neg=1)
    regions = [region("a small snowy striped red mug"), own, region("a large red car"), {"bbox": [0, 0, 1, 1]}]
    units = shards_of([write(tmp_path / "a.tar", {"bbox_info": regions}, {"bbox_info": regions[:1]})])
    stage = ChatNegatives(chat=Chat(model="stub", url=stub.url), count=6)
    counts = run(stage, units, tmp_path / "out")
    mug, hat, car, none = records(tmp_path / "out")[0]["bbox_info"]
    assert hat == own and none == regions[3]
    for one in (mug, car):
        assert len(set(one["short_expr_negs"].values())) == 6 and one["flag_short_neg"] == 1
        assert not any(is_true_of(one["short_expr"], negative) for negative in one["short_expr_negs"].values())
    assert counts["negatives"] == 18 and counts["regions"] == 5 and counts["regions that kept their own"] == 1
    assert counts["requests"] == 2  # the mug of both records is one question


def test_a_region_without_usable_negatives_stays_and_is_asked_for_again(stub, tmp_path):
    regions = [region("a large red mug"), region("a small blue car")]
    units = shards_of([write(tmp_path / "a.tar", {"bbox_info": regions})])
    stage = ChatNegatives(chat=Chat(model="stub", url=stub.url, asks=1), count=8)
    stub.trouble = lambda number, question: "empty" if "car" in question else ""
    run(stage, units, tmp_path / "out")
    _, car = records(tmp_path / "out")[0]["bbox_info"]
    assert "short_expr_negs" not in car
    (_, outcome), = OutputFolder(tmp_path / "out", "negatives").outcomes()  # fmt: skip
    assert [(row.region, row.cause) for row in rows_of(outcome) if row.status == FAILED] == [(1, texts.EMPTY)]
    stub.trouble = no_trouble
    run(stage, units, tmp_path / "out", retry_failed=True)
    assert len(records(tmp_path / "out")[0]["bbox_info"][1]["short_expr_negs"]) == 8
    counts = run(ChatNegatives(chat=stage.chat, count=40), units, tmp_path / "many")
    assert counts[f"regions without: {TOO_FEW}"] == 2


def test_images_are_sent_upright_small_and_in_a_common_format():
    buffer = io.BytesIO()
    image = Image.new("RGB", (300, 100), (9, 99, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(buffer, "JPEG", exif=exif)
    sent, kind = sendable(buffer.getvalue(), 150)
    with Image.open(io.BytesIO(sent)) as found:
        assert (found.size, kind) == ((50, 150), "jpeg")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert sendable(buffer.getvalue(), 300) == (buffer.getvalue(), "png")


def test_the_commands_ask_and_tell_the_cost(stub, units, tmp_path, capsys):
    chat = ["--chat.model", "stub", "--chat.url", stub.url]
    prices = ["--chat.price-in", "1000", "--chat.price-out", "2000"]
    main(["captions", str(tmp_path / "mine"), "--output", str(tmp_path / "c"), "--language", "", *chat, *prices])
    out = capsys.readouterr().out
    assert "9 of 9 records" in out and "1.80  US dollars of tokens" in out
    write(tmp_path / "regions" / "a.tar", {"bbox_info": [region("a large red mug")]})
    arguments = ["negatives", str(tmp_path / "regions"), "--method", "chat", "--output", str(tmp_path / "n"), *chat]
    main(arguments)
    assert "1  regions with new negatives" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--level must be mix, hard, medium, easy with chat, got trivial"):
        main([*arguments, "--level", "trivial"])
    assert json.loads((tmp_path / "n" / "negatives.json").read_text())["settings"]["method"] == "chat"
