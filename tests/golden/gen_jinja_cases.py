"""Goldens for the Jinja interpreter: many small templates, rendered by jinja2 with transformers' own settings.

    gen_jinja_cases.py              writes jinja/cases.json beside this file
    gen_jinja_cases.py --templates  prints the templates as JSON lines, for trying another interpreter on them

Needs transformers 5.23 and jinja2 3.1.6. Every case is a template over the variables below; the result is its `text`, or
the `error` class and `message`. `exact` marks messages an engine has to give in the same words.
"""
import copy
import datetime
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2026, 11, 22, 9, 5, 3)

VARIABLES = {
    "s": "Hello, World", "u": "Straße ΑΣΣ ǆ ﬁ İ", "blank": "", "pad": " \t x y \n", "lines": "a\nb\r\nc\n\n d",
    "n": None, "i": 7, "neg": -7, "f": 2.5, "tiny": 1e-07, "huge": 1e16, "big": 12345678901234567890, "t": True, "z": 0,
    "lst": [3, 1, 2], "mixed": [1, "two", None, 3.5, {"k": "v"}, [True]], "names": ["bob", "Al", "carl", "Bob"], "empty": [],
    "d": {"b": 1, "a": {"x": [1, 2]}, "items": "shadow", "C": "c", "é": "ü"}, "numbers": {"one": 1, "two": 2},
    "people": [{"name": "Al", "age": 30, "city": "ny"}, {"name": "Bo", "age": 25, "city": "LA"},
               {"name": "Cy", "age": 35, "city": "NY"}, {"name": "Di", "age": 25}],
    "html": "<a href='x'>\"&</a>", "quote": "it's", "both": "it's \"x\"", "emoji": "a👩‍💻b", "ctl": "\x01\x7f\u200b\u2028",
    "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]}, {"v": 5, "kids": []}],
}
MESSAGES = [{"role": "system", "content": "Sys"}, {"role": "user", "content": "Hi <|im_end|>"},
            {"role": "assistant", "content": "Yo", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
            {"role": "tool", "content": "r"}]

EXPRESSIONS = r"""
1
-3 | abs
1 + 2 * 3 ** 2
2 ** 3 ** 2
-2 ** 2
2 ** -1
7 / 2
7 // 2
-7 // 2
7 // -2
7 % 3
-7 % 3
7 % -3
-7.5 % 2
7.5 // 2
-7.5 // 2
1e3
1_000 + 0x1F + 0b11 + 0o17
1.5e-3
0.1 + 0.2
1 / 3
100000000000000000.0
123456789.123456789
1e22
-0.0
1e300 * 1e10
huge
tiny
big
big - 1
9223372036854775807 + 1
true + true
1 == 1.0
true == 1
1 < 2 < 3
1 < 3 < 2
'a' < 'b' <= 'b'
[1, 2] < [1, 3]
(1, 2) == (1, 2)
[1] == (1,)
'a' == 1
none == none
none != 0
1 in lst
9 not in lst
'ell' in s
'' in ''
'a' in d
'zz' in d
2 in d.values()
('one', 1) in numbers.items()
'one' in numbers.keys()
3 in range(5)
3 in (1, 2)
not 1 == 2
1 and 0 or 'x'
[] or none
'' and 1
'a' ~ 1 ~ none ~ true ~ 2.0 ~ [1] ~ undefinedname
'a' + 'b' * 3
3 * 'ab'
[1] + [2]
(1,) + (2, 3)
[0] * 3
'%s-%d-%5.2f|%-5s|%05d|%x|%X|%o|%e|%g|%%' % ('a', 3, 2.456, 'ab', 42, 255, 255, 8, 12345.678, 0.0001)
'%(a)s %(b)r' % {'a': 1, 'b': 'x'}
'%s' % 5
'%s' % [1, 2]
'%c%c' % ('a', 98)
'%+d % d %#x %#o' % (5, 5, 255, 8)
'%10s|%-10s|%.2s' % ('ab', 'cd', 'efgh')
'%*d' % (6, 42)
'%r' % quote
'%d' % 3.99
'%i %u' % (-1, 2)
'{} {}'.format(1, 'a')
'{1} {0} {x!r:>6}'.format('a', 'b', x='c')
'{:>8}|{:<8}|{:^8}|{:*^9}|{:08.3f}|{:+d}|{:,}|{:_}|{:x}|{:#b}|{:%}|{:e}'.format('a', 'b', 'c', 'd', 3.14159, 5, 1234567, 1234567, 255, 5, 0.25, 12345.6)
'{0[a]} {0[b]} {1.role} {2[0]}'.format({'a': 1, 'b': 2}, messages[0], lst)
'{{}} {}'.format('x')
'{:{w}}|'.format('a', w=5)
'{:.3}'.format('abcdef')
'{:10.3}|'.format(3.14159)
'{:5}|{:<5}|{:05}'.format(42, 42, 42)
'{:c}'.format(65)
'{} {}'.format(true, none)
'{a[x]}'.format_map({'a': {'x': 5}})
s[0]
s[-1]
s[1:4]
s[::-1]
s[:5]
s[-3:]
s[::2]
s[10:2:-3]
s[100:]
s[5:2]
u[5]
u[3:8]
u[::-1]
emoji[1:3]
lst[0]
lst[-1]
lst[1:]
lst[::-1]
lst[5]
lst[none:2]
(1, 2, 3)[1:]
range(10)[2:8:3]
range(10)[-1]
range(3)
range(2, 8, 2)
range(5, 0, -2) | list
range(0) | list
messages[-1].role
messages[1:][0]['content']
messages | length
d.b
d['b']
d.items
d['items']
d.a.x[1]
d.get('b')
d.get('zz')
d.get('zz', 5)
d.keys() | list
d.values() | list
d.items() | list
d | items | list
d | list
d | length
numbers.items()
numbers.keys()
numbers.values()
numbers.copy()
dict(a=1, b=2)
dict([('a', 1)], c=3)
dict(numbers, x=0)
dict.fromkeys(['a', 'b'], 0)
{'a': 1, 2: 'b', none: true, (1, 2): 'tuple'}
{}
()
(1,)
(1)
[1, [2, [3]], {'a': (1, 2)}]
mixed
quote
[quote, both, 'back\\slash', 'tab\t', ctl, emoji, u]
'a' 'b'
'\x41\u00e9\U0001F600\101\\d\d\'\"'
"tab\tnl\nend"
s.upper()
s.lower()
s.title()
s.swapcase()
s.capitalize()
u.upper()
u.lower()
u.title()
u.capitalize()
u.swapcase()
u | upper
u | lower
u | title
u | capitalize
"it's a dog-and(pony) {show} [x] <y>z" | title
"it's a dog's life".title()
pad.strip() ~ '|'
'|' ~ pad.lstrip() ~ '|' ~ pad.rstrip() ~ '|'
'xxaxx'.strip('x')
'abcabc'.lstrip('ab')
'abcabc'.rstrip('cb')
'éaé'.strip('é')
pad | trim
'xaxx' | trim('x')
s.split()
s.split(', ')
' a  b '.split()
' a  b '.split(' ')
'a,b,c,d'.split(',', 2)
'a,b,c,d'.rsplit(',', 2)
'a,b,c,d'.split(',', maxsplit=1)
'a,b'.split(sep=',')
'  a b  c '.split(none, 1)
'  a b  c '.rsplit(none, 1)
'  a b  c '.split(maxsplit=0)
''.split()
''.split(',')
'abc'.split('x')
lines.splitlines()
lines.splitlines(true)
s.replace('l', 'L')
s.replace('l', 'L', 1)
'abc'.replace('', '-')
'abc'.replace('', '-', 2)
'aaa'.replace('aa', 'b')
s.find('o')
s.find('zz')
s.rfind('o')
s.find('o', 5)
s.find('o', 5, 7)
s.find('', 100)
s.find('', 12)
u.find('ǆ')
s.index('W')
s.count('l')
s.count('')
s.count('o', 5)
s.startswith('Hell')
s.startswith(('x', 'He'))
s.startswith('World', 7)
s.endswith('World')
s.endswith(('x', 'ld'))
s.removeprefix('Hello')
s.removesuffix('World')
s.partition(', ')
s.rpartition('o')
s.partition('zz')
s.rpartition('zz')
', '.join(names)
', '.join('abc')
''.join([])
s.ljust(15, '.') ~ '|'
s.rjust(15) ~ '|'
s.center(15) ~ '|'
s.center(16, '*') ~ '|'
'ab'.center(5) ~ '|' ~ 'abc'.center(6) ~ '|'
'42'.zfill(5) ~ '-42'.zfill(5) ~ '+1'.zfill(4)
'a\tbc\td'.expandtabs(4)
'abc'.isalpha() ~ 'ab1'.isalpha() ~ ''.isalpha()
'123'.isdigit() ~ '²'.isdigit() ~ '1a'.isdigit() ~ '²'.isdecimal() ~ '½'.isnumeric()
'a1'.isalnum() ~ ' '.isspace() ~ 'A'.isupper() ~ 'a1'.islower() ~ '1'.isupper() ~ 'Ab Cd'.istitle() ~ 'aB'.istitle()
'abc'.isidentifier() ~ '1a'.isidentifier() ~ 'é'.isascii() ~ '\n'.isprintable()
names | join(', ')
names | join
lst | join('-')
people | join('|', attribute='name')
d | join(',')
mixed | join(',')
lst | first
lst | last
empty | first
empty | last
s | first
s | last
lst | length
s | length
emoji | length
undefinedname | length
lst | count
s | list
lst | reverse | list
s | reverse
emoji | reverse
d | reverse | list
undefinedname | list
lst | sort
lst | sort(reverse=true)
names | sort
names | sort(case_sensitive=true)
names | sort(true)
people | sort(attribute='age') | map(attribute='name') | list
people | sort(attribute='age,name', reverse=true) | map(attribute='name') | list
names | unique | list
names | unique(true) | list
people | unique(attribute='age') | map(attribute='name') | list
[1, 1.0, true, 2] | unique | list
people | map(attribute='name') | list
people | map(attribute='city') | list
people | map(attribute='city', default='none') | join(',')
names | map('upper') | list
names | map('replace', 'b', 'x') | list
[' a ', 'b '] | map('trim') | join('|')
lst | map('string') | list
lst | select | list
lst | select('odd') | list
lst | select('greaterthan', 1) | list
lst | select('>', 1) | list
lst | reject('odd') | list
lst | reject('in', [1, 2]) | list
people | selectattr('age', 'equalto', 25) | map(attribute='name') | list
people | selectattr('city') | list | length
people | selectattr('city', 'defined') | list | length
people | rejectattr('city', 'defined') | map(attribute='name') | list
people | rejectattr('age', '==', 25) | list | length
messages | selectattr('role', 'in', ['user', 'tool']) | map(attribute='content') | list
people | groupby('age') | list
people | groupby('city', default='zz') | map('first') | list
people | groupby('city', default='zz') | map(attribute='grouper') | list
people | groupby('city', default='zz', case_sensitive=true) | map(attribute=0) | list
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3, 4, 5] | batch(2, 'x') | list
[1, 2, 3, 4, 5] | slice(3) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
d | dictsort
numbers | dictsort(reverse=true)
numbers | dictsort(by='value', reverse=true)
{'b': 1, 'A': 2} | dictsort(true)
lst | min
lst | max
names | min
names | max(case_sensitive=true)
empty | max
people | max(attribute='age')
lst | sum
people | sum(attribute='age')
lst | sum(start=10)
[[1], [2]] | sum(start=[])
undefinedname | default('x')
undefinedname | default
none | default('x')
none | default('x', true)
'' | d('x', boolean=true)
0 | default(5, true)
s | replace('l', 'L')
s | replace('l', 'L', 2)
i | replace(7, 8)
lines | indent
lines | indent(2)
lines | indent(2, true)
lines | indent('> ', first=true, blank=true)
lines | indent(width=1, blank=true)
s | truncate(8)
s | truncate(8, true)
s | truncate(8, true, '')
s | truncate(8, false, '..', 0)
s | truncate(10)
'foo bar baz qux' | truncate(9)
s | center(20)
'%s is %s' | format('a', 1)
'%(x)s' | format(x=5)
"%.2f" | format(2.345)
"a b's c_d e-f" | wordcount
42 | string
none | string
[1] | string
html | escape
html | e
html | safe
(html | safe) + '<b>'
'<b>' + (html | safe)
html | safe | escape
html | safe | forceescape
(html | e) ~ '<'
html | safe is escaped
html | urlencode
{'a b': 'c&d', 'é': 1} | urlencode
[('x', 1), ('y', '/')] | urlencode
'42' | int
' 42 ' | int
'4_2' | int
'abc' | int
'abc' | int(5)
'12.9' | int
'0x1f' | int(base=16)
'ff' | int(0, 16)
'0b11' | int(base=0)
'z' | int(base=36)
12.9 | int
none | int
-12.9 | int
true | int
'1e3' | int
'3.5' | float
'abc' | float
'abc' | float(1.5)
'inf' | float
' 1_0.5 ' | float
'nan' | float
3 | float
42.55 | round
42.55 | round(1)
2.5 | round
3.5 | round
2.675 | round(2)
42.55 | round(1, 'floor')
42.51 | round(1, 'ceil')
1234.5 | round(-2)
1250 | round(-2)
5 | round
5 | round(1, 'ceil')
-2.5 | abs
1 | filesizeformat
500 | filesizeformat
1500 | filesizeformat
123456789 | filesizeformat
123456789 | filesizeformat(true)
1.5e15 | filesizeformat
mixed | tojson
d | tojson
d | tojson(indent=2)
mixed | tojson(indent=1)
numbers | tojson(indent='--')
[] | tojson(indent=2)
{'a': [], 'b': {}} | tojson(indent=2)
d | tojson(ensure_ascii=true)
emoji | tojson(ensure_ascii=true)
d | tojson(sort_keys=true)
numbers | tojson(separators=(',', ':'))
numbers | tojson(indent=2, separators=(';', '='))
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
[ctl, quote, both, html, lines] | tojson
[1e16, 1e-7, 1.0, 0.1, 1e22, 100.0] | tojson
('inf' | float, 'nan' | float) | tojson
(1, 2) | tojson
'a/b' | tojson
big | tojson
messages[0] | attr('role')
s | attr('upper') is callable
1 is defined
undefinedname is defined
undefinedname is undefined
messages[0].nope is defined
none is none
s is string
1 is number
true is number
true is integer
1 is integer
1.0 is float
1 is float
true is boolean
1 is boolean
true is true
1 is true
false is false
d is mapping
lst is mapping
lst is sequence
s is sequence
d is sequence
undefinedname is sequence
d.items() is sequence
1 is iterable
s is iterable
undefinedname is iterable
(lst | map('string')) is iterable
(lst | map('string')) is sequence
range(3) is sequence
3 is odd
4 is even
9 is divisibleby 3
9 is divisibleby(2)
'ABC' is upper
'abc' is lower
'1' is upper
1 is sameas 1
none is sameas none
1 is sameas true
lst is sameas lst
3 is in lst
3 is not in lst
'a' is eq 'a'
'a' is ne 'b'
2 is gt 1
2 is lessthan 1
range is callable
s is callable
'upper' is filter
'nope' is filter
'odd' is test
s is not none
s is not string or true
1 if true else 2
1 if false else 2
1 if false
(1 if false) is defined
1 if false else 2 if false else 3
'x' if undefinedname is defined else 'y'
'a' if 0 else ('b' if 1 else 'c')
namespace(a=1)
namespace(a=1).a
namespace({'a': 1}, b=2).b
namespace(a=1)['a']
joiner()
[1, 2][0:1][0]
messages[0]['role'][0:3] | upper
(messages | first).role
messages | map(attribute='tool_calls.0.function.name') | list | length
messages[2].tool_calls[0].function.arguments.x
d.a['x'][-1]
lst.0
'abc'.0
lst.index(2)
lst.count(3)
(3, 1).index(1)
lst.copy()
(2.0).is_integer()
7 .bit_length()
loop
caller
strftime_now('%Y-%m-%d %H:%M:%S %A %j %d %B %y %%')
strftime_now('%f|%z|%Z|%b %e|%-d|%U')
documents
documents is none
tools is none
add_generation_prompt
messages[0].role in ('system', 'user') and messages[1].role == 'user'
names | map('length') | sum
[names, lst] | map('join', '+') | join(' ')
names | map('first') | join
people | map(attribute='name') | map('lower') | unique | sort | join(',')
people | selectattr('age', '>=', 30) | sort(attribute='name', reverse=true) | map(attribute='name') | join
[1, 2, 3] | select('even') | first
(names | select('string') | list)[1:]
[[1, 2], [3, 4]] | map('sum') | list
[['a', 1], ['b', 2]] | map('last') | list
'a-b_c' | replace('-', ' ') | replace('_', ' ') | title
-1 | abs ~ 'x'
- 5 + 3
+5
not true
not not 1
'a' in 'abc' and 'd' not in 'abc'
1 != 2 != 1
[1,2,3,] | length
(1,2,) | length
{'a':1,} | length
lst[lst | length - 1]
lst[0] + lst[1] * lst[2]
(lst)[0]
'abc'[1]['upper']()
d['a']['x']['index'](2)
'a\
b'
'ﬀ'.upper() ~ 'ŉ'.title() ~ 'ΌΣΟΣ'.lower() ~ 'Σ'.lower() ~ 'AΣ.B'.lower()
""".strip("\n")

ERRORS = r"""
undefinedname.x
undefinedname['x']
undefinedname + 1
'a' + undefinedname
1 + 'a'
'a' + 1
[1] + 'a'
none + 1
messages[0].nope.x
messages[0].nope + 'x'
messages[10].role
lst[10].x
undefinedname()
s()
s.nope()
none.x.y
1 / 0
1 // 0
1 % 0
1.0 / 0
'a' < 1
none < 1
undefinedname < 1
[1] < ['a']
1 in 5
1 in 'abc'
'a' in none
for_missing | first.x
5 | length
none | length
(lst | map('string')) | length
lst | map('nosuchfilter') | list
lst | select('nosuchtest') | list
lst | map | list
people | selectattr | list
5 | list
none | join(',')
[1, 'a'] | sort
people | sort
people | map(attribute='name.x.y') | list
[[1]] | unique | list
{[1]: 2}
'%d' % 'a'
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%q' % 1
'%(a)s' % 5
'{} {}'.format(1)
'{x}'.format(y=1)
'{'.format(1)
'}'.format(1)
'{:d}'.format('a')
'{:s}'.format(1)
'{:>5}'.format(lst)
'abc'.split('')
s.index('zz')
lst.index(99)
s.join([1])
'a'.join(5)
s.replace('a')
s.strip(1)
s.startswith(1)
s.split(',', 1, 2)
s.split(foo=1)
s[1.5]['x']['y']
s['a':]
s[::0]
n[1:]
d[1:]
i[0:1]
lst.append(4)
d.update({})
d.pop('b')
s.__class__.x
s.__class__
raise_exception('own words')
raise_exception('a' ~ 1)
namespace(1)
namespace(_a=1)
range('a')
range(1, 2, 0)
range(100001) | length
dict(1)
cycler()
joiner()(1)
loop.index
caller()
tojson()
undefinedname | tojson
namespace() | tojson
{(1, 2): 3} | tojson
1 | round(0, 'x')
'a' | round
'a' | abs
none | indent
s | truncate(1)
lst | batch
numbers | dictsort(by='x')
lst | dictsort
5 | items | list
-'a'
+none
'a' * 'b'
'a' * 1.5
[1] * [2]
0 ** -1
lst | sum(attribute='x')
names | sum
s | int(0, 99)
'inf' | float | int
undefinedname | int
undefinedname | trim | length
lst | first | first
1 is divisibleby 0
1 is nosuch
1 | nosuch
1 is odd(2)
1 | default(1, 2, 3)
strftime_now()
messages[0].role.nope.nope
""".strip("\n")

TEMPLATES = [
    # White space control.
    "  {% if true %}  \n x\n  {% endif %}\ny\n",
    "a\n  {%- if true -%}  \n x\n  {%- endif -%}\n  y",
    "a\n  {%+ if true %}\n x\n  {%+ endif +%}\ny",
    "a  {{- 1 -}}  b  {{ 2 }}\n  c",
    "a\n  {# comment #}\nb {# c #} d\n  {#- x -#}\n e\n{#+ y +#}\nf",
    "{# a multi\nline {{ comment }} {% if %} #}x",
    "{% raw %}{{ x }}{% if %}{% endraw %}|",
    "a\n  {%- raw -%}  \n {{ y }} \n {%- endraw -%}\n b",
    "  {% raw %}\n  x {{ y }}\n  {% endraw %}\n z",
    "x\n\n", "x\n", "\n", "", "\r\na\rb\r\n{% if true %}\r\nc{% endif %}", "{", "{ {", "{{ '{{' }}", "}} %} #}", "a{b}c{ d",
    "{{ '}}' }}{{ {'a': {'b': 1}}.a.b }}{{ {'a': {}}}}", "{{ 1 }}\u00a0 {%- if true -%} \u00a0x{% endif %}",
    "{% set x = 1 -%}   \n  y{% set y %} \n b \n{% endset %}[{{ y }}]", "\t{% if true %}\ta\n\t{% endif %}b",
    "{{1}}{{+2}}{{- 3}} {{ 4 -}} x", "{%if true%}a{%endif%}", "{%- set a = 1 -%}\n\n{{- a -}}\n\n",
    # If, set, scopes.
    "{% if false %}a{% elif 0 %}b{% elif 1 %}c{% else %}d{% endif %}", "{% if undefinedname %}a{% else %}b{% endif %}",
    "{% if messages and tools is none and not empty %}ok{% endif %}", "{% if true: %}colon{% endif %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}{% set e = 1, 2 %}{{ e }}{% set f = 1, %}{{ f }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% for q in [1] %}{% set x = 3 %}{{ x }}{% endfor %}{{ x }}",
    "{% for q in [1, 2] %}{% set y = (y | default(0)) + 1 %}{{ y }}{% endfor %}{{ y is defined }}",
    "{% set x = 'out' %}{% for q in [1, 2] %}{{ x }}{% set x = 'in' %}{{ x }}{% endfor %}",
    "{% set ns = namespace(n=0, l=[]) %}{% for q in lst %}{% set ns.n = ns.n + q %}{% set ns.l = ns.l + [q * 2] %}{% endfor %}{{ ns.n }}{{ ns.l }}",
    "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a + ns.b }}{{ ns.c is defined }}{{ ns }}",
    "{% set x %}<{{ s }}>{% endset %}{{ x | upper }}{{ x is string }}",
    "{% set x | upper | replace('L', '_') %}hello{% endset %}{{ x }}", "{% set x | join('-') %}abc{% endset %}{{ x }}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% set c = 3 %}{{ c }}{% endwith %}{{ c is defined }}{% with %}{% endwith %}",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% filter upper %}a{{ s }}{% endfilter %}{% filter replace('a', 'b') | trim %} xa {% endfilter %}|",
    "{% print 1, 'a' %}{% print s %}", "{% set tools = tools or [] %}{{ tools }}", "{% set range = 5 %}{{ range }}",
    "{% block title %}a{{ s }}{% set q = 1 %}{% endblock %}{% block b scoped %}x{% endblock b %}{{ q is defined }}",
    "{% generation %}gen {{ s }}{% endgeneration %}|{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
    "{% autoescape false %}{{ html }}{% endautoescape %}", "{% set n = none %}{{ n }}{{ n is none }}",
    # Loops.
    "{% for x in lst %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ x }};{% endfor %}",
    "{% for x in lst %}{{ loop.previtem }}|{{ loop.nextitem }}|{{ loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}",
    "{% for x in lst %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for k, v in d | dictsort %}{{ k }}{% endfor %}",
    "{% for x in empty %}a{% else %}none{% endfor %}{% for x in [1] %}a{% else %}b{% endfor %}",
    "{% for x in undefinedname %}a{% else %}none{% endfor %}", "{% for c in 'añb' %}{{ c }}.{% endfor %}",
    "{% for x in [1, 2, 3, 4, 5] if x is odd %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for x in [1, 2] if x > 5 %}a{% else %}none{% endfor %}", "{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in [1] %}{% continue %}{% else %}else{% endfor %}", "{% for x in [1, 2] %}{% break %}{% else %}else{% endfor %}", "{% for x in [1, 2] %}{{ x }}{% if loop.last %}{% break %}{% endif %}{% else %}else{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for x in [1, 2] %}{% for y in ['a', 'b'] %}{{ loop.index }}{{ x }}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in [1, 2] %}{% set outer = loop %}{% for y in ['a', 'b'] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for n in tree recursive %}({{ n.v }}{{ loop(n.kids) }}{{ loop.depth }}){% endfor %}",
    "{% for n in tree recursive %}{{ loop.depth0 }}{{ n.v }}{% if n.kids %}[{{ loop(n.kids) | upper }}]{% endif %}{% else %}-{% endfor %}",
    "{% for x in range(3) | map('string') %}{{ x }}{{ loop.last }}{{ loop.length }}{% endfor %}",
    "{% set g = lst | map('string') %}{{ g | list }}{{ g | list }}", "{% for m in messages | selectattr('role', 'ne', 'tool') %}{{ m.role }}{{ loop.length }}{% endfor %}",
    "{% set ns = namespace(stop=false) %}{% for x in [1, 2, 3] if not ns.stop %}{{ x }}{% if x == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
    "{% for m in messages %}{{ loop.index }}. {{ m['role'] }}: {{ m.content }}\n{% endfor %}", "{% for x in lst | sort %}{{ x }}{% endfor %}{% for x in lst | reverse %}{{ x }}{% endfor %}",
    "{% for m in messages[::-1] %}{{ loop.index0 }}{{ m.role[0] }}{% endfor %}", "{% for a in 1, 2, 3 %}{{ a }}{% endfor %}", "{% for x in [1,2,3] -%}\n {{ x }}\n{%- endfor %}",
    "{% for key in d if key != 'b' and key in ['a', 'C'] %}{{ key }}{% endfor %}", "{% for x in (lst if t else empty) %}{{ x }}{% endfor %}", "{% for x in lst %}{{ loop }}{% endfor %}",
    # Macros.
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c='z') }}{{ m(b=5, a=6) }}",
    "{% macro m(a) %}[{{ a is defined }}{{ a }}]{% endmacro %}{{ m() }}{{ m(none) }}{{ m(undefinedname) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2, 3) }}",
    "{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) m(5) %}got {{ y }}{{ s }}{% endcall %}", "{% macro m() %}<{{ caller() if caller else 'no' }}>{% endmacro %}{{ m() }}{% call m() %}yes{% endcall %}",
    "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "{% set g = 1 %}{% macro m() %}{{ g }}{% set g = 5 %}{{ g }}{% endmacro %}{{ m() }}{% set g = 2 %}{{ m() }}{{ g }}",
    "{% macro outer() %}{% macro inner(x) %}i{{ x }}{% endmacro %}{{ inner(1) }}{% endmacro %}{{ outer() }}{{ inner is defined }}", "{% macro m() %}  x  {% endmacro %}[{{ m() }}][{{ m() | trim }}]{{ m() is string }}",
    "{% for x in [1, 2] %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m() %}a{% endmacro %}{{ m }}{{ m.name }}", "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(1, *[2]) }}{{ m(1, **{'b': 9}) }}",
    "{{ m is defined }}{% macro m() %}a{% endmacro %}{{ m is defined }}", "{% macro m(x) %}{% for i in x %}{{ loop.index }}{{ i }}{% endfor %}{% endmacro %}{{ m('ab') }}{{ m([1]) }}", "{% macro m(content=content) %}{{ content is defined }}{% endmacro %}{% set content = 1 %}{{ m() }}",
    "{% macro render(c) %}{% if c is string %}{{ c }}{% elif c is iterable and c is not mapping %}{% for p in c %}{{ p.text }}{% endfor %}{% endif %}{% endmacro %}{{ render('a') ~ render([{'text': 'b'}, {'text': 'c'}]) }}",
    # Helpers.
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}", "{% set j = joiner('|') %}{% for x in lst %}{{ j() }}{{ x }}{% endfor %}{% set k = joiner() %}{{ k() }}a{{ k() }}b",
    "{% set f = s.upper %}{{ f() }}", "{% set d2 = dict(d, z=1) %}{{ d2.z }}{{ d.z is defined }}", "{{ [1, 2] | map('multiply') | list if false else 'x' }}", "{% if false %}{{ 1 | nosuch }}{% endif %}ok", "{{ (1 | nosuch) if false else 2 }}", "{% if false %}{% include 'x' %}{% endif %}ok",
    # Idioms of published templates.
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] | trim + '\n\n' %}{% else %}{% set loop_messages = messages %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}X{% endif %}{% if loop.index0 == 0 %}{% set content = system_message + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{{ '<' + message['role'] + '>' + content }}{% endfor %}",
    "{{- bos_token }}{%- for m in messages -%}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + eos_token -}}{%- endfor -%}",
    "{%- set ns = namespace(is_first=false, is_tool=false, system_prompt='') -%}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{%- endif %}{%- endfor -%}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'assistant' and 'tool_calls' in message and message['tool_calls'] is not none %}{%- for tool in message['tool_calls'] %}{{ tool['function']['name'] + '\n' + '```json\n' + tool['function']['arguments'] | tojson + '\n```' }}{%- endfor %}{%- endif %}{%- endfor %}",
    "{%- set user_messages = messages | selectattr('role', 'equalto', 'user') | list %}{{ user_messages[-1]['content'] }}{%- for m in messages | rejectattr('role', 'in', ['tool']) %}{%- if m is defined and m.content is defined %}{{ m.content.strip() }}{%- endif %}{%- endfor %}",
    "{%- macro type_of(p) -%}{%- if p.type is string -%}{{ p.type }}{%- elif p.type is iterable -%}{{ p.type | join(' | ') }}{%- else -%}any{%- endif -%}{%- endmacro -%}{{ type_of({'type': 'x'}) }}{{ type_of({'type': ['a', 'b']}) }}{{ type_of({}) }}",
    "{%- if tools is defined and tools is not none %}t{%- elif documents %}d{%- else %}n{%- endif %}{{ eos_token is defined }}{{ enable_thinking | default(true) }}",
    "{%- set today = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' -%}{{ today }}",
    "{{ messages | map(attribute='content') | join('\\n') }}{{ (messages | last).content }}{{ messages[-1].role if messages }}", "{%- for m in messages %}{{- m.role.upper() ~ ': ' ~ (m.content if m.content is string else m.content | tojson) ~ ('\n' if not loop.last else '') }}{%- endfor %}",
    "{% set parts = 'a</think>b</think>c'.split('</think>') %}{{ parts[0].split('<think>')[-1] }}{{ parts[-1].lstrip('\n') }}{{ '</think>'.join(parts[1:]) }}",
    # Syntax errors.
    "{{", "{{ }}", "{{ 1", "{{ 1 }", "{% %}", "{% if %}", "{% if true %}", "{% endif %}", "{% if true %}{% endfor %}", "{% for x in [1] %}", "{% for in [1] %}{% endfor %}", "{% for x of [1] %}{% endfor %}", "{% for x in %}{% endfor %}",
    "{% set %}", "{% set x %}", "{% set 1 = 2 %}", "{% set x = %}", "{% set a.b.c = 1 %}", "{% set x[0] = 1 %}", "{% macro %}{% endmacro %}", "{% macro m %}{% endmacro %}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(1) %}{% endmacro %}", "{% macro m() %}",
    "{{ 'abc }}", "{{ \"abc }}", "{{ (1 }}", "{{ [1 }}", "{{ {1 }}", "{{ 1) }}", "{{ (1] }}", "{{ {'a' 1} }}", "{{ a b }}", "{{ 1 + }}", "{{ * 1 }}", "{{ a.}}", "{{ a.'x' }}", "{{ a | }}", "{{ a | 1 }}", "{{ a is }}", "{{ a is 1 }}", "{{ f(a=1, 2) }}", "{{ f(**a, b) }}", "{{ f(a b) }}",
    "{{ 1 | nosuch }}", "{{ 1 is nosuch }}", "{# unclosed", "{% raw %}unclosed", "{% unknown %}", "{% else %}", "{% break %}", "{% continue %}", "{% for x in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{{ a ? b : c }}", "{{ a && b }}", "{{ !a }}", "{{ a = 1 }}", "{{ $x }}", "{{ `x` }}",
    "{{ '\\x4' }}", "{{ '\\u12' }}", "{% call m %}{% endcall %}", "{% call 1 %}{% endcall %}", "{% filter %}{% endfilter %}", "{% filter nosuch %}{% endfilter %}", "{% with a %}{% endwith %}", "{% for loop in [1] %}{% endfor %}", "{% if true %}{% else %}{% else %}{% endif %}", "{% if true %}{% elif %}{% endif %}",
    "{{ not }}", "{{ 1 if }}", "{{ a[ }}", "{{ a[1 }}", "{{ a[] }}", "{{ {1: 2, 3} }}", "{{ 1 is defined is defined }}", "{% block a %}{% endblock %}{% block a %}{% endblock %}", "{% set true = 1 %}", "{% for true in [1] %}{% endfor %}", "{{ 0x }}", "{{ 1__0 }}", "{{ 01 }}", "{% endraw %}", "{% generation %}", "{% if a = 1 %}{% endif %}",
    # Errors at run time.
    "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in [(1,)] %}{% endfor %}", "{% set a, b = 1 %}", "{% set x = 1 %}{% set x.y = 2 %}", "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% for x in [1] %}{{ loop(x) }}{% endfor %}", "{% for x in [1] %}{{ loop.nope.x }}{% endfor %}",
    "{% if true %}{{ 1 | nosuch }}{% endif %}", "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% for x in lst %}{{ loop.cycle() }}{% endfor %}", "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools: ' + m.role) }}{% endif %}{% endfor %}", "{{ nope.a.b }}", "{{ messages.0.nope.x }}",
]


def all_templates():
    text = EXPRESSIONS.replace("\\\n", "\0")   # one expression holds an escaped line break
    found = ["{{ " + line.replace("\0", "\\\n") + " }}" for line in text.split("\n")]
    found += ["{{ " + line + " }}" for line in ERRORS.split("\n")]
    return found + TEMPLATES


def render(template):
    from transformers.utils import chat_template_utils as lib

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW
    lib.datetime = Clock
    try:
        text = lib._compile_jinja_template(template).render(
            messages=copy.deepcopy(MESSAGES), tools=None, documents=None, add_generation_prompt=False,
            **copy.deepcopy(VARIABLES))
        return {"text": text}
    except Exception as e:                                        # noqa: BLE001  a template that raises is a result
        return {"error": type(e).__name__, "message": str(e).splitlines()[0][:200] if str(e) else "",
                "exact": type(e).__name__ == "TemplateError"}


def main():
    if sys.argv[1:] == ["--templates"]:
        for template in all_templates():
            print(json.dumps({"template": template, "messages": MESSAGES, "kwargs": VARIABLES}))
        return
    cases = [{"template": template, **render(template)} for template in all_templates()]
    # Python shows addresses of functions and generators: no engine can match those.
    cases = [case for case in cases if " at 0x" not in case.get("text", "")]
    out = {"now": NOW.isoformat(), "messages": MESSAGES, "variables": VARIABLES, "cases": cases}
    with open(os.path.join(HERE, "jinja", "cases.json"), "w") as f:
        json.dump(out, f, indent=0)
        f.write("\n")
    print(f"{len(cases)} cases, {sum('error' in case for case in cases)} raise")


if __name__ == "__main__":
    main()
