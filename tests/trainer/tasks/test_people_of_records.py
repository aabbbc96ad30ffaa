"""People come out of a RecordIO file, as WebFace is handed out: they train every task, and the pack knows how."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from calibration.faces import FaceFinder, read_image, scaled
from engines.errors import UserError
from engines.pack import verify
from tests.trainer.data.records import insightface_records, packed, write
from trainer.common import checkpoint, loop
from trainer.common.distributed import World
from trainer.common.settings import load_settings
from trainer.data.alignment import insightface
from trainer.tasks import load


def quiet(what, count, total):
    pass


def job_of(name, settings, *more):
    task = load(name)
    return task.build(load_settings(task.settings, None, [*settings, *more]), World(), quiet)


def photographs(root, people=None, each=None):
    return [sorted(folder.iterdir())[:each] for folder in sorted(root.iterdir())[:people]]


@pytest.fixture(scope="module")
def chips(some_faces, pack):
    """LFW's people as InsightFace would hand them out: aligned to its five points, 112 pixels."""
    finder = FaceFinder(pack.path)

    def chip(file: Path) -> bytes:
        image = read_image(file)
        found = finder.aligned(image, finder.subject(image), 112, insightface(112))
        return cv2.imencode(".jpg", found, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()

    made = [[chip(file) for file in files] for files in photographs(some_faces)]
    finder.close()
    return made


@pytest.fixture(scope="module")
def rec(chips, tmp_path_factory):
    return write(tmp_path_factory.mktemp("rec") / "train.rec", insightface_records(chips))


@pytest.fixture(scope="module")
def of_records(settings, rec, faces):
    """Settings of a run of seconds on them, with a small set in FER2013's form for the expressions."""
    ship = (f"ship.expressions={faces}", "ship.expression_faces=64", "ship.name=small")
    return [*settings, f"people.root={rec}", *ship]


@pytest.fixture(scope="module")
def trained(of_records, tmp_path_factory):
    """A network that was trained on them, its run and its pack."""
    out = tmp_path_factory.mktemp("trained")
    # What a pair of them is, a margin of 0 and a small scale learn within seconds.
    job = job_of("recognise", of_records, "head.margin=0", "head.scale=12")
    module = loop.train(job, out / "run", quiet)
    load("recognise").finish(job, module, out / "run", out / "pack", quiet, lambda line: None)
    return job, out


def test_recognition_learns_from_them_and_nobody_who_judges_trains(trained):
    job, out = trained
    found = loop.read_history(out / "run")
    assert np.mean([line["loss"] for line in found[-2:]]) < 0.95 * found[0]["loss"]
    people = job.people
    assert (people.classes, len(people.training.labels)) == (10, 60)  # of 14 people; 30 % are held out
    assert len(people.judged.labels) == 4 * 4
    assert {pair.genuine for pair in people.pairs} == {True, False}
    names = [
        {part.name(item) for item in range(len(part.labels))} for part in (people.training, people.judged)
    ]
    assert not names[0] & names[1]
    assert ("aligned", "to InsightFace's five points") in job.facts()


def test_the_agent_cuts_for_their_pack_what_was_trained_on(trained, chips, some_faces, pack):
    _, out = trained
    made = verify(out / "pack")
    assert np.allclose(made.manifest.face.template, insightface(48), atol=1e-4)
    finder, usual = FaceFinder(made.path), FaceFinder(pack.path)
    for files, own in list(zip(photographs(some_faces), chips, strict=True))[:3]:
        image = read_image(files[0])
        shown = cv2.resize(
            cv2.imdecode(np.frombuffer(own[0], np.uint8), 1), (48, 48), interpolation=cv2.INTER_AREA
        )
        face = finder.subject(image)
        assert np.abs(finder.aligned(image, face, 48).astype(int) - shown).mean() < 4
        assert np.abs(usual.aligned(image, face, 48).astype(int) - shown).mean() > 12
    finder.close()
    usual.close()


def test_a_run_goes_on_and_is_refused_with_other_records(of_records, trained, chips, tmp_path):
    job = ("recognise", of_records, "head.margin=0", "head.scale=12")
    loop.train(job_of(*job), tmp_path, quiet, stop_after=1)
    loop.train(job_of(*job), tmp_path, quiet)
    weights = [checkpoint.load(out / loop.CHECKPOINT)[0] for out in (tmp_path, trained[1] / "run")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    fewer = write(tmp_path / "fewer.rec", insightface_records([chips[0][:5], *chips[1:]]))
    with pytest.raises(checkpoint.CheckpointError, match="another data sha256"):
        loop.train(job_of(*job, f"people.root={fewer}"), tmp_path, quiet)


@pytest.mark.parametrize("name", ["simclr", "multitask", "relate", "reduce", "distill"])
def test_every_task_on_people_takes_them(of_records, trained, faces, tmp_path, name):
    teacher = trained[1] / "pack"
    few = ["steps=4", "batch=8"]
    common = [
        setting for setting in of_records if not setting.startswith(("ship.", "augment.", "width", "side"))
    ]
    own = {
        "multitask": [f"fer2013={faces}", "fer_batch=8"],
        "relate": [f"teacher={teacher}"],
        "reduce": [f"teacher={teacher}", "dim=16", f"keep={tmp_path / 'kept'}", "batch=16"],
        "distill": [
            f"fer2013={faces}",
            "fer_batch=8",
            f"cache={tmp_path / 'kept'}",
            "fit_faces=40",
            f'teachers=[{{name="pack",source="onnx:{teacher}",adaptor="direct",expression_weight=1.0}}]',
        ],
    }.get(name, [])
    settings = [*(common if name == "reduce" else of_records), *few, *own]
    loop.train(job_of(name, settings), tmp_path / "run", quiet)
    if "kept" in "".join(own):  # and a teacher that has answered is not asked again
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*")}
        assert before
        loop.train(job_of(name, settings), tmp_path / "again", quiet)
        assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*")}


@pytest.mark.parametrize("name", ["relate", "reduce", "distill"])
def test_a_teacher_that_wants_faces_aligned_otherwise_is_not_asked(of_records, settings, pack, name):
    teacher = (
        f'teachers=[{{name="pack",source="onnx:{pack.path}"}}]'
        if name == "distill"
        else f"teacher={pack.path}"
    )
    known = ("people.", "threads")
    chosen = [
        *(setting for setting in of_records if setting.startswith(known)),
        "dim=64",
        "people.damaged=0",
        teacher,
    ]
    with pytest.raises(UserError, match="eyes, nose and mouth in other places"):
        job_of(name, chosen)


@pytest.mark.parametrize("listed", [False, True], ids=["pairs are made", "pairs of a list"])
def test_people_of_a_folder_judge_while_all_of_the_records_train(
    of_records, rec, some_faces, tmp_path, listed
):
    judges = tmp_path / "judges"
    for folder in sorted(some_faces.iterdir())[:3]:
        shutil.copytree(folder, judges / folder.name)
    one, other, third = (folder.name for folder in sorted(judges.iterdir()))
    own, theirs = (
        [int(path.stem.split("_")[-1]) for path in sorted((judges / name).iterdir())] for name in (one, other)
    )
    more = ["people.pairs="]
    if listed:
        genuine, strangers = f"{one}\t{own[0]}\t{own[1]}", f"{one}\t{own[0]}\t{other}\t{theirs[0]}"
        (tmp_path / "pairs.txt").write_text("\n".join(["2\t1", genuine, strangers, genuine, strangers]))
        more = [f"people.pairs={tmp_path / 'pairs.txt'}", "people.folds=[0,1]"]
    people = job_of("recognise", of_records, f"people.judges={judges}", *more).people
    assert people.classes == 14
    assert {name.split("/")[0] for name in people.places} == {one, other} | (set() if listed else {third})
    assert len(people.pairs) == (4 if listed else 60)
    # They are the very people of the first records: their photographs were aligned as the records are.
    first = sorted(name for name in people.places if name.startswith(one))[0]
    shown = people.judged.read(people.places[first]).astype(int)
    assert np.abs(shown - people.training.read(0)).mean() < 4


def test_people_of_a_folder_who_judge_are_not_trained_on_by_name(settings, some_faces, tmp_path):
    judges = tmp_path / "judges"
    for folder in sorted(some_faces.iterdir())[:2]:
        shutil.copytree(folder, judges / folder.name)
    people = job_of("recognise", settings, f"people.judges={judges}").people
    assert people.classes == 12
    assert {name.split("/")[0] for name in people.places} == {folder.name for folder in judges.iterdir()}
    assert all(str(judges) in people.judged.name(place) for place in people.places.values())


def test_whole_photographs_in_records_are_cut_as_those_of_folders(settings, some_faces, pack, tmp_path):
    files = photographs(some_faces, 6, 3)
    rec = write(
        tmp_path / "whole.rec", insightface_records([[file.read_bytes() for file in each] for each in files])
    )
    more = [f"people.root={rec}", "people.records=photographs", f"people.cut.keep={tmp_path / 'faces'}"]
    job = job_of("relate", settings, *more, f"teacher={pack.path}", "values=0", "distances=1", "batch=4")
    finder = FaceFinder(pack.path)
    for item, number in enumerate(job.people.training.numbers[:3].tolist()):
        image = read_image(files[number // 3][number % 3])
        expected = finder.aligned(image, finder.subject(image), 48)[:, :, ::-1]
        assert (job.people.training.read(item) == expected).all()
    finder.close()
    with pytest.raises(UserError, match="from where InsightFace puts them"):
        job_of("recognise", settings, f"people.root={rec}", "batch=4")
    face = pack.manifest.face
    assert np.allclose(job.people.template, scaled(face.template, face.side, 48))


def test_damaged_records_are_counted_named_and_passed_over_up_to_the_limit(of_records, chips, tmp_path):
    records = insightface_records(chips)
    judges = job_of("recognise", of_records).people
    key = {
        part: int(getattr(judges, part).name(0).split("record ")[1].split()[0])
        for part in ("training", "judged")
    }
    records |= {number: packed(0.0, b"no picture") for number in key.values()}
    damaged = [*of_records, f"people.root={write(tmp_path / 'damaged.rec', records)}", "steps=16"]
    job = job_of("recognise", damaged, "people.damaged=1")
    assert len(job.people.judged.labels) == len(judges.judged.labels) - 1
    assert f"record {key['judged']} at byte" in dict(job.facts())["left out"]
    loop.train(job, tmp_path / "run", quiet)
    assert len(job.feed.items.damage.items) == 1
    with pytest.raises(UserError, match=rf"record {key['judged']} at byte \d+: not an image"):
        job_of("recognise", damaged, "people.damaged=0")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["people.root=none/train.rec"], "none/train.rec: No such file"),
        (["people.pairs=pairs.txt"], "people.pairs names photographs in folders"),
        (["people.held_out=0"], "nobody of those held out has two photographs"),
        (["people.least=7"], "nobody is left to train on"),
        (["people.judges={some_faces}", "people.cut.way=box"], "otherwise than the aligned faces"),
        (["people.root={some_faces}", "people.listed=train.lst"], "people.listed goes with a .rec file"),
        (["people.listed=none.lst"], "none.lst: No such file"),
    ],
)
def test_what_cannot_be_is_named(of_records, some_faces, more, named):
    with pytest.raises(UserError, match=named):
        job_of("recognise", of_records, *(setting.format(some_faces=some_faces) for setting in more))


def test_people_of_one_picture_each_cannot_judge_and_an_index_is_needed(of_records, chips, tmp_path):
    alone = write(tmp_path / "alone.rec", insightface_records([pictures[:1] for pictures in chips]))
    with pytest.raises(UserError, match="nobody of those held out has two photographs"):
        job_of("recognise", of_records, f"people.root={alone}", "people.least=1")
    alone.with_suffix(".idx").unlink()
    with pytest.raises(UserError, match=r"alone\.idx: No such file"):
        job_of("recognise", of_records, f"people.root={alone}", "people.least=1")
