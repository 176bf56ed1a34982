"""Chat templates of the shapes that models come with, in words of our own: what they print, drop and refuse differs.

`tokenizer_with` makes a tokenizer of one: a token a byte, and the marks of the template, made up, as special tokens.
"""

import re

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distillkit_builtin.hf_tokenizer import HFTokenizer

OPEN = "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
CHATML = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}" + OPEN

CHATML_TOOLS = (  # tools before all, calls as JSON, a tool's answer in a turn of its own
    "{% if tools %}<|start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|end|>\n{% endif %}"
    "{% if documents %}<|start|>context\n{{ documents | tojson }}<|end|>\n{% endif %}"
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c | tojson }}</call>{% endfor %}"
    "{% if m.tool_call_id %}({{ m.tool_call_id }}){% endif %}<|end|>\n{% endfor %}" + OPEN
)
LLAMA = (  # the date, the system turn first, one call a message, a tool's answer under another role
    "{% if not date is defined %}{% set date = '26 Jul 2024' %}{% endif %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "<|head|>system<|/head|>\n\nToday: {{ date }}\n\n{{ system }}<|eot|>"
    "{% if tools %}{% set first = rest[0].content | trim %}{% set rest = rest[1:] %}<|head|>user<|/head|>\n\n"
    "{% for t in tools %}{{ t | tojson(indent=4) }}\n\n{% endfor %}{{ first }}<|eot|>{% endif %}"
    "{% for m in rest %}{% if m.tool_calls %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}"
    "{% set c = m.tool_calls[0].function %}<|head|>assistant<|/head|>\n\n"
    '{"name": "{{ c.name }}", "parameters": {{ c.arguments | tojson }}}<|eot|>'
    "{% elif m.role in ('tool', 'ipython') %}<|head|>ipython<|/head|>\n\n{{ m.content | tojson }}<|eot|>"
    "{% else %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
MISTRAL = (  # turns alternate, the system turn goes into the last user's, ids have nine letters
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}"
    "{% set users = turns | selectattr('role', 'equalto', 'user') | list %}<s>"
    "{% for m in turns %}{% if m.role == 'user' %}"
    "{% if tools and m == users[-1] %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}"
    "[INST]{% if loop.last and system is defined %}{{ system }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[CALLS][{% for c in m.tool_calls %}{% if not c.id or c.id | length != 9 %}"
    "{{ raise_exception('ids of calls have nine letters') }}{% endif %}{% set f = c.function | tojson %}"
    '{{ f[:-1] }}, "id": "{{ c.id }}"}{{ \', \' if not loop.last }}{% endfor %}]</s>'
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}</s>"
    "{% elif m.role == 'tool' %}[RESULT]{{ m.content }}, {{ m.tool_call_id }}[/RESULT]"
    "{% else %}{{ raise_exception('only user, assistant and tool') }}{% endif %}{% endfor %}"
)
GEMMA = (  # no system role, strict alternation, the assistant has another name
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
GEMMA_SYSTEM = (  # the system turn goes into the first user's; what is no assistant is a user
    "{% if messages[0].role == 'system' %}{% set prefix = messages[0].content ~ '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set prefix = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}<turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
    "{{ prefix if loop.first }}{{ m.content | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
QWEN = (  # tools and calls in tags, tools answer as the user, the reasoning of earlier turns is dropped
    "{% if tools %}<|start|>system\n{{ messages[0].content ~ '\n\n' if messages[0].role == 'system' }}"
    "<tools>{% for t in tools %}\n{{ t | tojson }}{% endfor %}\n</tools><|end|>\n"
    "{% elif messages[0].role == 'system' %}<|start|>system\n{{ messages[0].content }}<|end|>\n{% endif %}"
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n"
    "{% elif m.role == 'assistant' %}{% set thought = m.reasoning_content or '' %}{% set said = m.content %}"
    "{% if not thought and '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1] %}"
    "{% set said = said.split('</think>')[-1] %}{% endif %}<|start|>assistant\n"
    "{% if loop.index0 > ns.last and thought %}<think>\n{{ thought | trim }}\n</think>\n\n{% endif %}{{ said }}"
    "{% for c in m.tool_calls or [] %}{% set c = c.function if c.function else c %}\n<tool_call>\n"
    '{"name": "{{ c.name }}", "arguments": '
    "{% if c.arguments is string %}{{ c.arguments }}{% else %}{{ c.arguments | tojson }}{% endif %}}\n</tool_call>"
    "{% endfor %}<|end|>\n"
    "{% elif m.role == 'tool' %}<|start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK = (  # one system text before all, arguments as text behind a fence, thoughts cut off
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = ns.system ~ m.content ~ '\n' %}{% endif %}{% endfor %}<s>{{ ns.system }}"
    "{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<|Assistant|>{{ m.content.split('</think>')[-1] }}"
    "{% for c in m.tool_calls or [] %}<|call|>{{ c.function.name + '\n```json\n' + c.function.arguments + '\n```' }}"
    "{% endfor %}<|eos|>{% elif m.role == 'tool' %}<|output|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>{% endif %}"
)
PHI = (  # marks made of the role, tools inside the system turn only
    "{% for m in messages %}{% if m.role == 'system' and tools %}{{ '<|' ~ m.role ~ '|>' ~ m.content }}"
    "<|tool|>{{ tools | tojson }}<|/tool|><|end|>"
    "{% else %}{{ '<|' ~ m.role ~ '|>' ~ m.content ~ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ITERATES = (  # a call as XML, an argument a tag; the names of tools alone
    "{% for t in tools or [] %}{{ t.function.name }} {% endfor %}"
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<function={{ c.function.name }}>{% for key, value in c.function.arguments.items() %}"
    "<{{ key }}>{{ value if value is string else value | tojson }}</{{ key }}>{% endfor %}</function>{% endfor %}"
    "<|end|>\n{% endfor %}" + OPEN
)
SIGNATURES = (  # tools as signatures of functions: of a tool without parameters there is no schema
    "{% for t in tools or [] %}{% set f = t.function %}// {{ f.description }}\ntype {{ f.name }} = ("
    "{% if f.parameters and f.parameters.properties %}_: { {% for name, p in f.parameters.properties.items() %}"
    "{{ name }}{{ '?' if name not in f.parameters.required or [] }}: {{ p.type }}, // {{ p.description }}\n"
    "{% endfor %} }{% endif %}) => any;\n{% endfor %}"
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}<|end|>\n{% endfor %}" + OPEN
)
PRINTS_AS_GIVEN = (  # arguments as they come: Python's notation for an object
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments }}]{% endfor %}<|end|>\n"
    "{% endfor %}" + OPEN
)
NEVER_JSON = (  # Python's notation for an object, and quotes around a text
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{% if c.function.arguments is string %}{{ c | tojson }}{% else %}{{ c }}{% endif %}{% endfor %}"
    "<|end|>\n{% endfor %}" + OPEN
)
CHECKS_IDS = (  # a tool's answer must be to a call before it, which it is printed with
    "{% set ns = namespace(ids=[]) %}{% for m in messages[-6:] %}{% for c in m.tool_calls or [] %}"
    "{% set ns.ids = ns.ids + [c.id] %}{% endfor %}{% if m.role == 'tool' and m.tool_call_id not in ns.ids %}"
    "{{ raise_exception('answers no call') }}{% endif %}<|start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|end|>\n{% endfor %}" + OPEN
)
DROPS_ROLES = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n"
    "{% endif %}{% endfor %}" + OPEN
)
NO_ROLES = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
LAST_ONLY = "<|start|>user\n{{ messages[-1].content }}<|end|>\n" + OPEN
LAST_FOUR = "{% for m in messages[-4:] %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}" + OPEN
FIRST_TOOLS = "{% for t in (tools or [])[:2] %}{{ t | tojson }}\n{% endfor %}" + CHATML
STRICT = "{{ raise_exception('nothing pleases this template') }}"

TEMPLATES = {name.lower(): value for name, value in list(globals().items()) if name.isupper() and name != "OPEN"}
"""By name, in small letters."""
MARK = re.compile(r"<\|/?\w+\|>|</?(?:s|turn|think)>|\[/?[A-Z]+\]")


def tokenizer_with(template: str) -> HFTokenizer:
    """Byte level, with the template's marks as special tokens."""
    marks = ["<unk>", *dict.fromkeys(MARK.findall(template))]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate([*marks, *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(marks)
    return HFTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template), "of a test")
