"""Templates over a row's columns: what they give, what is refused and when, and that the sandbox holds."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from distillkit.data.row_format.row_template import compile_expression, compile_template
from distillkit.errors import RowError

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
ROW: dict[str, Any] = {
    "question": "What is {{ 6 * 7 }}? {% raw %}",
    "answer": "42",
    "level": 3,
    "nothing": None,
    "turns": TURNS,
    "cell": '{"a": [1]}',
    "my column": "x",
}


def made(template: Any) -> Any:
    return compile_template(template, "data.format.prompt").of(ROW)


def refused_at_the_row(template: str) -> str:
    compiled = compile_template(template, "data.format.prompt")
    with pytest.raises(RowError) as caught:
        compiled.of(ROW)
    assert caught.value.field == "data.format.prompt"
    return str(caught.value).removeprefix("data.format.prompt: ")


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("math", "math"),
        ("", ""),
        ("{{ question }}", ROW["question"]),
        ("{{ question }}\n", ROW["question"]),
        ("Q: {{ question }}\n\nA: {{ answer }}", f"Q: {ROW['question']}\n\nA: 42"),
        (" {{ level }}", " 3"),
        ("{{ level }}", 3),
        ("{{ level + 0.5 }}", 3.5),
        ("{{ level > 2 }}", True),
        ("{{ nothing }}", None),
        ("{{ question ~ level ~ ' ' ~ 0.5 }}", f"{ROW['question']}3 0.5"),
        ("{{ (nothing or answer) | trim }}", "42"),
        ("{{ level | string }}", "3"),
        ("{{ [question, nothing, answer] | select | join('\n') }}", f"{ROW['question']}\n42"),
        ("{{ turns | join('-', attribute='content') }}", "Hi-Yes"),
        ("{{ 'It is %s, %d' % (answer, level) }}", "It is 42, 3"),
        ("{{ 7 % level }}", 1),
        ("{{ answer | int + 1 }}", 43),
        ("{{ '4.5' | float }}", 4.5),
        ("{{ 'x' | int(-1) }}", -1),
        ("{{ turns }}", TURNS),
        ("{{ turns | without_answer }}", TURNS[:1]),
        ("{{ turns | map(attribute='role') }}", ["user", "assistant"]),
        ("{{ range(3) | list }}", [0, 1, 2]),
        ("{{ (1, 2) }}", [1, 2]),
        ("{{ cell | from_json }}", {"a": [1]}),
        ("{{ turns | from_json }}", TURNS),
        ("{{ '' | from_json }}", None),
        ("{{ row['my column'] }}", "x"),
        ("{{ absent | default('none') }}", "none"),
        ("{{ '<é>' | tojson }}", '"<é>"'),
        ("{% for turn in turns %}{% if loop.last %}{% break %}{% endif %}{{ turn.role }}{% endfor %}", "user"),
        ("  {% if level %}\nyes\n  {% endif %}\n", "yes\n"),
        (7, 7),
        (None, None),
        ([{"role": "user", "content": "{{ answer }}!"}, 1], [{"role": "user", "content": "42!"}, 1]),
    ],
)
def test_what_a_template_makes(template: Any, value: Any) -> None:
    found = made(template)
    assert found == value
    assert type(found) is type(value)


def test_a_rows_text_is_never_a_template() -> None:
    assert made("{{ question }}") == made("{{ question }}{{ '' }}") == "What is {{ 6 * 7 }}? {% raw %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ answr }}",
            "`answr` is no column; did you mean 'answer'? The row has question, answer, level, nothing, turns, cell, ",
        ),
        ("It is {{ answr }}", "`answr` is no column; did you mean 'answer'?"),
        ("{{ [answr] }}", "`answr` is no column; did you mean 'answer'?"),
        ("{% if answr %}x{% endif %}", "`answr` is no column; did you mean 'answer'?"),
        ("{{ answr | without_answer }}", "`answr` is no column; did you mean 'answer'?"),
        ("{{ zzz }}", "`zzz` is no column. The row has question,"),
        ("{{ row['my colum'] }}", "'dict object' has no attribute 'my colum'"),
        ("{{ turns[0].rol }}", "'dict object' has no attribute 'rol'"),
        ("{{ answer + level }}", "TypeError: can only concatenate str"),
        (
            "{{ nothing > 3 }}",
            "TypeError: '>' not supported between instances of 'NoneType' and 'int'; a column is null",
        ),
        (
            "{{ answer > 3 }}",
            "TypeError: '>' not supported between instances of 'str' and 'int'; a column is a text there, as every",
        ),
        ("{{ level / 0 }}", "ZeroDivisionError: division by zero"),
        ("It is {{ nothing }}", "prints null within a text; say what stands there then"),
        ("They are {{ turns }}", "prints a JSON array within a text; say how: `| join(', ')`, `| tojson`"),
        ("It is {{ turns | map('upper') }}", "prints a generator within a text"),
        ("{{ answer ~ nothing }}", "prints null within a text"),
        ("{{ answer ~ turns }}", "prints a JSON array within a text"),
        ("{{ self ~ answer }}", "prints a TemplateReference within a text"),
        ("{{ nothing | trim }}", "trim: prints null within a text; say what stands there then: `{{ column or '' }}`"),
        ("{{ turns[0] | upper }}", "upper: prints a JSON object within a text"),
        ("{{ nothing | string }}", "prints null within a text"),
        ("{{ answer | replace('4', nothing) }}", "replace: prints null within a text"),
        ("{{ [answer, nothing] | map('trim') | list }}", "trim: prints null within a text"),
        ("{{ [answer, nothing] | join(' ') }}", "join: prints null within a text"),
        ("{{ 'It is %s' % nothing }}", "prints null within a text"),
        ("{{ '%s%s' % (answer, turns) }}", "prints a JSON array within a text"),
        ("{{ '%s' | format(nothing) }}", "format: prints null within a text"),
        ("{{ question | int }}", "int: 'What is {{ 6 * 7 }}? {% raw %}' is no number; say what it is then: `| int(0)`"),
        ("{{ nothing | float }}", "float: null is no number; say what it is then: `| float(0)`"),
        ("{{ namespace() }}", "makes Namespace, which JSON has not"),
        ("{{ {1: 2} }}", "makes an object with a key that is no text"),
        ("{{ 1e308 * 10 }}", "makes inf, which JSON has not"),
        ("{{ answer | from_sharegpt }}", "from_sharegpt: wants a list of turns, not a JSON string"),
        ("{{ question | from_json }}", "from_json: is no JSON: Expecting value at character 1"),
        ("{{ '[\"a' | from_json }}", "from_json: is no JSON: Unterminated string starting at character 2"),
        (
            """{{ "[{'role': 'user'}]" | from_json }}""",
            "from_json: is no JSON: Expecting property name enclosed in double quotes at character 3; it is Python's",
        ),
        ("{{ '[NaN]' | from_json }}", "from_json: holds NaN, which JSON does not have"),
    ],
)
def test_what_fails_at_a_row_is_said_with_the_key(template: str, message: str) -> None:
    assert refused_at_the_row(template).startswith(message)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ question", "Jinja cannot read it: unexpected end of template"),
        ("a\n{% if %}", "Jinja cannot read it: Expected an expression, got 'end of statement block' (its line 2)"),
        ("{{ question | upcase }}", "Jinja cannot read it: No filter named 'upcase'"),
        ("{{ question | random }}", "Jinja cannot read it: No filter named 'random'"),
        ("{% include 'x' %}", "includes or imports another template"),
        ("{{ '\\ud800' }}", "holds half of a surrogate pair"),
        ("{{ " + "(" * 5000 + " }}", "Jinja cannot"),
        ("{{ 1" + "0" * 5000 + " }}", "Jinja cannot compile it: Exceeds the limit"),
        ([{"content": "{{ x"}], "[0] .content Jinja cannot read it"),
    ],
)
def test_what_is_no_template_is_found_before_any_row(template: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its message is looked at
        compile_template(template, "data.format.prompt")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "template",
    [
        "{{ answer.__class__ }}",
        "{{ answer.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ answer['__class__'] }}",
        "{{ answer | attr('__class__') }}",
        "{{ '{0.__class__}'.format(answer) }}",
        "{{ '{x.__class__}'.format_map({'x': answer}) }}",
        "{{ turns.append(1) }}",
        "{{ row.update({'a': 1}) }}",
        "{{ row.clear() }}",
        "{{ range(10 ** 9) }}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 10 ** 100000000 * level }}",
        "{{ lipsum() }}",
        "{{ self.__init__ }}",
    ],
)
@pytest.mark.parametrize("around", ["", "a text: "])
def test_nothing_gets_out_of_the_sandbox_or_fills_the_memory(template: str, around: str) -> None:
    before = repr(ROW)
    with pytest.raises((RowError, ValueError)):
        compile_template(around + template, "data.format.prompt").of(ROW)
    assert repr(ROW) == before


@pytest.mark.parametrize(
    ("template", "reads"),
    [
        ("{{ b }}", {"b"}),
        ("{{ b }} {{ a }} {{ b }}", {"a", "b"}),
        ("{{ row['my column'] ~ a }}", {"my column", "a"}),
        ("{{ row.b | trim }}", {"b"}),
        ("{% set x = a %}{{ x }}{{ range(2) | list | tojson }}", {"a"}),
        ({"p": "{{ a }}", "q": ["{{ b }}"]}, {"a", "b"}),
        ("a", set()),
    ],
)
def test_which_columns_it_reads(template: Any, reads: set[str]) -> None:
    assert compile_template(template, "k").reads == reads


def test_a_column_hides_what_jinja_calls_by_its_name() -> None:
    columns = {"range": "r", "dict": "d", "row": "the column"}
    template = compile_template("{{ range ~ dict }} {{ row }}", "k")
    assert template.of(columns) == "rd the column"
    assert compile_template("{{ row }}", "k").of(columns) == "the column"


def test_what_a_template_sets_is_gone_at_the_next_row() -> None:
    template = compile_template("{% if a is defined %}{% set b = a %}{% endif %}{{ b | default('none') }}", "k")
    assert [template.of({"a": "1"}), template.of({})] == ["1", "none"]


@pytest.mark.parametrize("text", ["level >", "{{ level }}", "level) + (1", "level answer", "", "level }}{{ answer"])
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(ValueError, match=r"Jinja cannot|without braces"):
        compile_expression(text, "data.filter", "0")


def test_nothing_of_one_row_is_seen_at_the_next() -> None:
    template = compile_template("{% if a is defined %}{% set b = a %}{% endif %}{{ b | default('none') }}.", "k")
    assert [template.of({"a": "x"}), template.of({"c": "y"}), template.of({"b": "z"})] == ["x.", "none.", "z."]


def test_a_template_makes_rows_in_several_threads_at_once() -> None:
    template = compile_template("{% set b = a %}{{ b }}{{ pause() }}{{ b }}", "k")
    both_inside = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda a: template.of({"a": a, "pause": lambda: both_inside.wait(10) and ""}), ("x", "y")))
    assert sorted(str(text)[0] for text in made) == ["x", "y"]
    assert all(str(text)[0] == str(text)[-1] for text in made)
