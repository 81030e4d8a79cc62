"""What a student token may attend to, through both processors, both models, a cache and the trainer."""

from dataclasses import replace

import pytest
import torch

from hf_evl_ecg.chat.batches import model_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.distillation.cache import CachedTeacher
from hf_evl_ecg.distillation.cache_files import CacheLayout
from hf_evl_ecg.distillation.cache_writer import TeacherCacheWriter
from hf_evl_ecg.distillation.criterion import student_request, teacher_request
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.models.features import FeatureRequest, extract_features

FORMS = ("all", "turn", "aligned")


def conversation(image, *answers):
    """Three turns; the answers may be replaced by others of as many tokens: digits are tokens by themselves."""
    questions = ("What is the rhythm?", "And the heart rate?", "QRS duration?")
    turns = [
        turn
        for question, answer in zip(questions, answers, strict=True)
        for turn in ({"from": "human", "value": question}, {"from": "gpt", "value": answer})
    ]
    return {"id": "c", "image": image, "conversations": turns}


@pytest.fixture
def pair(tiny_vlm):
    return tiny_vlm("idefics3"), tiny_vlm("llava_next")


@pytest.fixture
def conversing(build, ecg_examples):
    """A trainer on a conversation and two questions; keyword arguments are its options."""

    def make(teacher="llava_next", **options):
        image = ecg_examples[0]["image"]
        examples = [conversation(image, "sinus rhythm", "72", "120"), *ecg_examples[1:3]]
        return build(teacher=teacher, examples=examples, **{"learning_rate": 1e-3, **options})

    return make


def targets(trainer, batch):
    """Aligned teacher, with the student's features."""
    request = student_request(trainer.criterion, trainer.args, several_processes=False)
    request = replace(request, places=True)
    with torch.no_grad():
        student = extract_features(trainer.model, model_inputs(batch), batch["labels"], request, places=batch["places"])
        asked = replace(teacher_request(trainer.criterion, trainer.args), places=True)
        teacher = trainer.teacher.features(batch, asked)
        aligner = trainer.criterion.evl_ecg.aligner.float()
        return aligner(student.hidden, teacher.hidden, teacher.mask, student.places, teacher.places), student


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("tokens", ["all", "answer"])
@pytest.mark.parametrize("attention", FORMS)
def test_answers_of_other_turns_and_later_text_do_not_reach_a_target(
    conversing, pair, ecg_examples, attention, tokens, side
):
    trainer = conversing(attention=attention, hidden_tokens=tokens)
    trainer.model.eval()
    collator = EVLECGCollator(pair[0].processor, pair[1].processor, padding_side=side)
    image = ecg_examples[0]["image"]
    answers = [("sinus rhythm", "72", "120"), ("sinus rhythm", "72", "135"), ("sinus rhythm", "81", "120")]
    batch, later, middle = (collator([ecg_examples[1], conversation(image, *a)]) for a in answers)
    assert batch["input_ids"].shape == later["input_ids"].shape == middle["input_ids"].shape
    assert batch["teacher"]["input_ids"].shape == later["teacher"]["input_ids"].shape
    (found, student), (after_later, _), (after_middle, _) = (targets(trainer, b) for b in (batch, later, middle))
    turn, byte = student.places[1].unbind(1)
    question = len(b"And the heart rate?")
    groups = {  # tokens whose own states are the same in both batches, as they read only what comes before
        "first turn, last answer differs": (after_later, turn == 0),
        "first turn, middle answer differs": (after_middle, turn == 0),
        "middle turn, last answer differs": (after_later, turn == 1),
        "before the middle answer, that differs": (after_middle, (turn == 1) & (byte <= question)),
    }
    for name, (other, tokens_of) in groups.items():
        assert tokens_of.any(), name
        same = torch.equal(other[1, tokens_of], found[1, tokens_of])
        own_turn = name.startswith("before")
        assert same == (attention == "aligned" or (attention == "turn" and not own_turn)), name


def test_visual_tokens_see_visual_tokens(conversing, ecg_examples):
    found = {}
    for attention in FORMS:
        trainer = conversing(attention=attention, hidden_tokens="visual")
        trainer.model.eval()
        found[attention], student = targets(trainer, trainer.data_collator(trainer.train_dataset))
        assert found[attention][student.mask].abs().sum() > 0
    assert torch.equal(found["turn"], found["all"])
    assert torch.equal(found["aligned"], found["all"])


@pytest.mark.parametrize(
    ("attention", "tokens", "mode"),
    [
        ("turn", "all", "paper"),
        ("aligned", "all", "anchored"),
        ("aligned", "answer", "anchored"),
        ("turn", "visual", "paper"),
    ],
)
def test_training_with_each_form_is_the_loss_by_hand(conversing, attention, tokens, mode):
    trainer = conversing(attention=attention, hidden_tokens=tokens, mhca_mode=mode, match="normalised", max_steps=1)
    trainer.model.eval()
    batch = trainer.data_collator(trainer.train_dataset)
    request = student_request(trainer.criterion, trainer.args, several_processes=False)
    assert request.places
    student = extract_features(trainer.model, model_inputs(batch), batch["labels"], request, places=batch["places"])
    teacher = trainer.teacher.features(batch, teacher_request(trainer.criterion, trainer.args))
    expected = trainer.criterion(student, teacher, torch.tensor(1.0), lm_head=trainer.model.lm_head)
    trainer.train()
    entry = trainer.state.log_history[0]
    for name in expected.keys() - {"ce"}:
        assert entry[name] == pytest.approx(expected[name].item(), rel=1e-4)


@pytest.mark.parametrize("tokens", ["all", "answer", "visual"])
def test_a_cached_teacher_trains_as_the_teacher_itself(conversing, pair, tmp_path, tokens):
    """One cache serves every form of attention; its inputs hold no images, so the places come from the cache."""
    large = pair[1]
    layout = CacheLayout(tokens=tokens, dtype="float32", top_k=0)
    writer = TeacherCacheWriter(tmp_path / "cache", OnlineTeacher(large.load()), layout, fingerprint={})
    examples = conversing().train_dataset
    writer.write([EVLECGCollator(pair[0].processor, large.processor)(examples)])
    for attention in FORMS:
        logs = []
        for teacher in ("llava_next", CachedTeacher(tmp_path / "cache", expected={})):
            trainer = conversing(teacher, attention=attention, hidden_tokens=tokens)
            trainer.train()
            logs.append([entry for entry in trainer.state.log_history if "mhca" in entry])
        for online, cached in zip(*logs, strict=True):
            for name in ("mhca", "relation", "ot"):
                assert cached[name] == pytest.approx(online[name], rel=1e-3), (attention, name)


def test_a_cut_teacher_leaves_the_last_turn_without_target(conversing, pair, ecg_examples):
    """Its answer states are covered, those of the last turn were cut: the student's have nothing to match there."""
    trainer = conversing(attention="aligned", hidden_tokens="answer")
    image = ecg_examples[0]["image"]
    example = conversation(image, "sinus rhythm", "72", "120")
    length = EVLECGCollator(pair[1].processor)([example])["input_ids"].shape[1]
    collator = EVLECGCollator(pair[0].processor, pair[1].processor, teacher_max_length=length - 8)
    batch = collator([example])
    _, student = targets(trainer, batch)
    teacher = trainer.teacher.features(batch, FeatureRequest(tokens="answer", places=True))
    found = trainer.criterion.evl_ecg.aligner.has_target(teacher.mask, student.places, teacher.places)
    assert torch.equal(found[0], student.places[0, :, 0] < 2)
    assert not found.all()
