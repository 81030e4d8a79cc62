"""What holds of every transport plan and of the loss made of it; problems drawn by hypothesis."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_evl_ecg.ot import ot_matching_loss
from hf_evl_ecg.sinkhorn import marginal_error, sinkhorn

SIZES = st.integers(1, 6)


@st.composite
def problems(draw):
    """Cost, row masses and column masses of a batch in float64, some of them padding; totals agree. Shapes (B, N, M), (B, N), (B, M)."""
    batch, rows, columns = draw(st.integers(1, 3)), draw(SIZES), draw(SIZES)
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    cost = torch.rand(batch, rows, columns, generator=random, dtype=torch.float64) * draw(st.floats(0.01, 5))
    masses = []
    for count in (rows, columns):
        mass = torch.rand(batch, count, generator=random, dtype=torch.float64) + 0.1
        kept = torch.arange(count) < torch.randint(1, count + 1, (batch, 1), generator=random)
        masses.append(mass * kept / (mass * kept).sum(1, keepdim=True))
    return cost, masses[0], masses[1]


EPSILONS = st.floats(0.05, 2)


@given(problems(), EPSILONS)
def test_a_plan_has_its_marginals_and_no_negative_mass(problem, epsilon):
    cost, a, b = problem
    plan = sinkhorn(cost, a, b, epsilon=epsilon, max_iter=500)
    assert torch.isfinite(plan).all()
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(1), b, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        marginal_error(plan, a, b), (plan.sum(2) - a).abs().sum(1) + (plan.sum(1) - b).abs().sum(1), atol=1e-9, rtol=0
    )
    assert (plan[a == 0] == 0).all()
    assert (plan.mT[b == 0] == 0).all()


@given(problems(), EPSILONS, st.integers(0, 2**20))
def test_order_of_tokens_is_carried_over(problem, epsilon, seed):
    cost, a, b = problem
    random = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(count, generator=random) for count in cost.shape[1:])
    plan = sinkhorn(cost, a, b, epsilon=epsilon)
    turned = sinkhorn(cost[:, rows][:, :, columns], a[:, rows], b[:, columns], epsilon=epsilon)
    torch.testing.assert_close(turned, plan[:, rows][:, :, columns], atol=1e-10, rtol=1e-8)


@given(
    problems(), EPSILONS, st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 1e9, float("inf"), float("nan")])
)
def test_padding_is_invisible_whatever_it_holds(problem, epsilon, more_rows, more_columns, value):
    cost, a, b = problem
    plan = sinkhorn(cost, a, b, epsilon=epsilon)
    padded = torch.nn.functional.pad(cost, (0, more_columns, 0, more_rows), value=value)
    found = sinkhorn(
        padded,
        torch.nn.functional.pad(a, (0, more_rows)),
        torch.nn.functional.pad(b, (0, more_columns)),
        epsilon=epsilon,
    )
    torch.testing.assert_close(found[:, : cost.shape[1], : cost.shape[2]], plan, atol=1e-10, rtol=1e-8)
    assert (found[:, cost.shape[1] :] == 0).all()
    assert (found[:, :, cost.shape[2] :] == 0).all()


@given(problems(), EPSILONS, st.floats(-3, 3), st.floats(0.1, 10))
def test_constants_added_to_the_cost_and_common_units_change_nothing(problem, epsilon, added, scale):
    """exp(-(C + u) / epsilon) is scaled alike everywhere; cost and epsilon in other units are the same problem."""
    cost, a, b = problem
    plan = sinkhorn(cost, a, b, epsilon=epsilon, max_iter=200)
    torch.testing.assert_close(sinkhorn(cost + added, a, b, epsilon=epsilon, max_iter=200), plan, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(
        sinkhorn(cost * scale, a, b, epsilon=epsilon * scale, max_iter=200), plan, atol=1e-8, rtol=1e-6
    )


@given(problems())
@settings(max_examples=20)
def test_much_entropy_gives_the_product_of_the_masses(problem):
    cost, a, b = problem
    plan = sinkhorn(cost, a, b, epsilon=1e5)
    torch.testing.assert_close(plan, a[:, :, None] * b[:, None], atol=1e-4, rtol=1e-3)


@st.composite
def tokens(draw):
    """Teacher, student and their masks. Shapes (B, N, D), (B, M, D), (B, N), (B, M)."""
    batch, rows, columns, width = draw(st.integers(1, 3)), draw(SIZES), draw(SIZES), draw(st.integers(2, 5))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    made = [torch.randn(batch, count, width, generator=random, dtype=torch.float64) for count in (rows, columns)]
    masks = [
        torch.arange(count) < torch.randint(1, count + 1, (batch, 1), generator=random) for count in (rows, columns)
    ]
    return *made, *masks


@given(tokens(), st.floats(0.05, 1), st.floats(0.1, 100), st.floats(0.1, 100))
def test_the_loss_sees_directions_of_valid_tokens_alone(given_tokens, epsilon, long, short):
    """Neither their length, nor their order, nor what stands at padding."""
    teacher, student, teacher_mask, student_mask = given_tokens
    loss = ot_matching_loss(teacher, student, teacher_mask, student_mask, epsilon=epsilon)
    assert -1e-9 < float(loss) < 4 + 1e-9, "squared distances of unit vectors"
    for other in (
        (teacher * long, student * short, teacher_mask, student_mask),
        (teacher.flip(1), student, teacher_mask.flip(1), student_mask),
        (teacher, student.flip(1), teacher_mask, student_mask.flip(1)),
        (
            teacher.masked_fill(~teacher_mask[:, :, None], 7.0),
            student.masked_fill(~student_mask[:, :, None], -3.0),
            teacher_mask,
            student_mask,
        ),
    ):
        torch.testing.assert_close(ot_matching_loss(*other, epsilon=epsilon), loss, atol=1e-8, rtol=1e-6)


@given(tokens(), st.floats(0.05, 1))
def test_gradients_are_finite_and_lie_on_the_sphere_of_valid_tokens(given_tokens, epsilon):
    teacher, student, teacher_mask, student_mask = given_tokens
    student = student.clone().requires_grad_()
    ot_matching_loss(teacher, student, teacher_mask, student_mask, epsilon=epsilon).backward()
    assert torch.isfinite(student.grad).all()
    assert (student.grad[~student_mask] == 0).all()
    along = (student.grad * student).sum(2)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-8, rtol=0)


@given(tokens(), st.integers(0, 2**20))
def test_a_common_rotation_changes_nothing(given_tokens, seed):
    teacher, student, teacher_mask, student_mask = given_tokens
    random = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(teacher.shape[2], teacher.shape[2], generator=random, dtype=torch.float64))[0]
    loss = ot_matching_loss(teacher, student, teacher_mask, student_mask)
    torch.testing.assert_close(
        ot_matching_loss(teacher @ turn, student @ turn, teacher_mask, student_mask), loss, atol=1e-7, rtol=1e-5
    )
