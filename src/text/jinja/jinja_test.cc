// The interpreter against jinja2's own results (tests/golden/jinja), its error positions and its limits.
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "text/chat_template.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

const Json kOneMessage = Json::parse(R"([{"role": "user", "content": "Hi"}])");

Expected<std::string> run(const std::string& source, const Json& kwargs = {}, const TemplateLimits& limits = {},
                          const Json& messages = kOneMessage) {
  auto parsed = ChatTemplate::parse(source, {});
  if (!parsed.ok()) return parsed.status();
  ChatTemplateInput input;
  input.messages = messages;
  input.kwargs = kwargs;
  input.add_generation_prompt = false;
  std::tm now{};
  now.tm_year = 2026 - 1900;
  now.tm_mon = 10;
  now.tm_mday = 22;
  now.tm_hour = 9;
  now.tm_min = 5;
  now.tm_sec = 3;
  input.now = now;
  return (*parsed)->render(input, limits);
}

TEST(Jinja, RendersWhatJinja2Renders) {
  std::ifstream file(PENSTOCK_SOURCE_DIR "/tests/golden/jinja/cases.json");
  ASSERT_TRUE(file);
  const Json golden = Json::parse(file);
  ASSERT_GT(golden["cases"].size(), 800U);
  for (const Json& test : golden["cases"]) {
    const std::string source = test["template"];
    const auto got = run(source, golden["variables"], {}, golden["messages"]);
    if (test.contains("text")) {
      ASSERT_TRUE(got.ok()) << source << "\n" << got.status().message();
      EXPECT_EQ(*got, test["text"].get<std::string>()) << source;
    } else {
      EXPECT_FALSE(got.ok()) << source << "\ngave " << *got << "\nbut jinja2 says " << test["message"];
      if (got.ok()) continue;
      EXPECT_EQ(got.status().code(), StatusCode::kInvalidArgument);
      if (test["exact"].get<bool>()) {
        EXPECT_EQ(got.status().message(), test["message"].get<std::string>());
      }
    }
  }
}

struct Malformed {
  const char* source;
  const char* place;    // line and column
  const char* message;  // part of it
};

class JinjaSyntax : public testing::TestWithParam<Malformed> {};

TEST_P(JinjaSyntax, IsReportedWithItsPlace) {
  const auto parsed = ChatTemplate::parse(GetParam().source, {});
  ASSERT_FALSE(parsed.ok()) << GetParam().source;
  EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
  const std::string& message = parsed.status().message();
  EXPECT_TRUE(message.starts_with(std::string("chat template, ") + GetParam().place + ": ")) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

constexpr Malformed kMalformed[] = {
    {"{{", "line 1, column 3", "unexpected end of template"},
    {"{{ }}", "line 1, column 4", "Expected an expression"},
    {"a\nb {{ 1 }", "line 2, column 8", "unexpected '}'"},
    {"\n\n{% %}", "line 3, column 4", "tag name expected"},
    {"{% if %}", "line 1, column 7", "Expected an expression"},
    {"{% if true %}\nx", "line 2, column 2", "closed is 'if', from line 1"},
    {"x\n{% endif %}", "line 2, column 4", "unknown tag 'endif'"},
    {"{% if true %}{% endfor %}", "line 1, column 17", "Looking for 'elif' or 'else' or 'endif'"},
    {"{% for x in [1] %}", "line 1, column 19", "Looking for 'endfor' or 'else'"},
    {"{% for 1 in [1] %}{% endfor %}", "line 1, column 8", "can't assign to '1'"},
    {"{% for x of [1] %}{% endfor %}", "line 1, column 10", "expected token 'in', got 'of'"},
    {"{% for x in %}{% endfor %}", "line 1, column 13", "Expected an expression"},
    {"{% for loop in [1] %}{% endfor %}", "line 1, column 8", "special loop variable"},
    {"{% set %}", "line 1, column 8", "expected a name to assign to"},
    {"{% set x = %}", "line 1, column 12", "Expected an expression"},
    {"{% set x %}abc", "line 1, column 15", "Looking for 'endset'"},
    {"{% set a.b.c = 1 %}", "line 1, column 11", "expected end of statement block"},
    {"{% set true = 1 %}", "line 1, column 8", "can't assign to 'true'"},
    {"{% set 'x' = 1 %}", "line 1, column 8", "can't assign to text 'x'"},
    {"{% macro m %}{% endmacro %}", "line 1, column 12", "expected token '('"},
    {"{% macro %}{% endmacro %}", "line 1, column 10", "expected a name"},
    {"{% macro m(a=1, b) %}{% endmacro %}", "line 1, column 17", "non-default argument follows default argument"},
    {"{% macro m(1) %}{% endmacro %}", "line 1, column 12", "expected a name, got '1'"},
    {"{% macro m(caller) %}{{ caller }}{% endmacro %}", "line 1, column 4", "\"caller\" argument"},
    {"{{ 'abc }}", "line 1, column 4", "the text never ends"},
    {"{{ (1 }}", "line 1, column 7", "unexpected '}', expected ')'"},
    {"{{ [1) }}", "line 1, column 6", "unexpected ')', expected ']'"},
    {"{{ 1) }}", "line 1, column 5", "unexpected ')'"},
    {"{{ {'a' 1} }}", "line 1, column 9", "expected token ':'"},
    {"{{ a b }}", "line 1, column 6", "expected end of print statement, got 'b'"},
    {"{{ 1 + }}", "line 1, column 8", "unexpected end of print statement"},
    {"{{ a. }}", "line 1, column 7", "expected name or number"},
    {"{{ a | }}", "line 1, column 8", "expected a name"},
    {"{{ a | 1 }}", "line 1, column 8", "expected a name, got '1'"},
    {"{{ a is }}", "line 1, column 9", "expected a name"},
    {"{{ a is nosuch }}", "line 1, column 6", "No test named 'nosuch'"},
    {"{{ a is defined is string }}", "line 1, column 17", "cannot chain multiple tests"},
    {"{{ f(a=1, 2) }}", "line 1, column 5", "invalid syntax for function call"},
    {"{{ f(**a, b) }}", "line 1, column 5", "invalid syntax for function call"},
    {"{{ f(a=1, a=2) }}", "line 1, column 11", "given twice"},
    {"{{ 1 | nosuch }}", "line 1, column 8", "No filter named 'nosuch'"},
    {"{% filter nosuch %}{% endfilter %}", "line 1, column 11", "No filter named 'nosuch'"},
    {"x {# y", "line 1, column 3", "Missing end of comment tag"},
    {"x {% raw %} y", "line 1, column 3", "Missing end of raw directive"},
    {"{% unknown x %}", "line 1, column 4", "unknown tag 'unknown'"},
    {"{% break %}", "line 1, column 4", "'break' outside loop"},
    {"{% for x in [1] %}{% call m() %}{% continue %}{% endcall %}{% endfor %}", "line 1, column 36",
     "'continue' outside loop"},
    {"{{ a ? b }}", "line 1, column 6", "unexpected char '?'"},
    {"é\n日本 {{ !a }}", "line 2, column 7", "unexpected char '!'"},
    {"{{ a = 1 }}", "line 1, column 6", "got '='"},
    {"{{ '\\x4' }}", "line 1, column 8", "truncated"},
    {"{{ '\\ud800' }}", "line 1, column 7", "no Unicode character"},
    {"{{ '\\N{DASH}' }}", "line 1, column 5", "not supported"},
    {"{% call 1 %}{% endcall %}", "line 1, column 4", "expected call"},
    {"{% with a %}{% endwith %}", "line 1, column 11", "expected token '='"},
    {"{% if true %}{% else %}{% else %}{% endif %}", "line 1, column 27", "unknown tag 'else'"},
    {"{{ a[1 }}", "line 1, column 8", "unexpected '}', expected ']'"},
    {"{{ a[1:2, 3] }}", "line 1, column 9", "several dimensions"},
    {"{% autoescape true %}{% endautoescape %}", "line 1, column 15", "autoescape is not supported"},
    {"{% block a %}{% endblock %}{% block a %}{% endblock %}", "line 1, column 31", "defined twice"},
    {"{{ 99999999999999999999 }}", "line 1, column 4", "more than 64 bits"},
    {"{{ 1__0 }}", "line 1, column 5", "got '__0'"},
};
INSTANTIATE_TEST_SUITE_P(Malformed, JinjaSyntax, testing::ValuesIn(kMalformed));

TEST(Jinja, RuntimeErrorsNameTheirPlace) {
  const auto got = run("line one\n{% if true %}\n  {{ messages[0].nope.x }}\n{% endif %}");
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.status().message(), "chat template, line 3, column 6: 'dict object' has no attribute 'nope'");
}

TEST(Jinja, TemplatesRaiseInTheirOwnWords) {
  const auto got = run("{{ raise_exception('Only ' ~ 2 ~ ' roles, please') }}");
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(got.status().message(), "Only 2 roles, please");
}

// ---------------------------------------------------------------------------------------------------------------
// limits

std::string times(const std::string& text, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += text;
  return out;
}

void expect_refused(const std::string& source, const std::string& message, const Json& kwargs = {},
                    const TemplateLimits& limits = {}) {
  const auto got = run(source, kwargs, limits);
  ASSERT_FALSE(got.ok()) << source.substr(0, 200) << "\ngave " << got->substr(0, 200);
  EXPECT_EQ(got.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(got.status().message().find(message), std::string::npos) << source.substr(0, 200) << "\n"
                                                                     << got.status().message();
}

TEST(JinjaLimits, Steps) {
  expect_refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
                 "more than 10000000 steps");
  const TemplateLimits few{.max_steps = 1000};
  expect_refused("{% for a in range(99999) %}{% endfor %}", "more than 1000 steps", {}, few);
  expect_refused("{{ range(99999) | list | length }}", "more than 1000 steps", {}, few);
  expect_refused("{{ ('x' * 99999) | upper | length }}", "steps", {}, few);
  expect_refused("{{ ([1] * 99999) | length }}", "more than 1000 steps", {}, few);
  expect_refused("{{ range(99999) | map('abs') | select | sum }}", "more than 1000 steps", {}, few);
  EXPECT_TRUE(run("{{ 1 + 1 }}", {}, few).ok());
  // Values that share their parts can be exponentially large to walk: comparing and hashing them is counted too.
  const std::string grow =
      "{% set ns = namespace(a=(1,), b=(1,)) %}{% for i in range(60) %}"
      "{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}{% endfor %}";
  expect_refused(grow + "{{ ns.a == ns.b }}", "steps");
  expect_refused(grow + "{{ {ns.a: 1} }}", "steps");
  expect_refused(grow + "{{ ns.a | tojson }}", "");
}

TEST(JinjaLimits, TextAndOutput) {
  expect_refused("{{ 'x' * 1000000000 }}", "longer than");
  expect_refused("{{ 'ab' | center(9999999999) }}", "longer than");
  expect_refused("{{ '%99999999999d' % 1 }}", "longer than");
  expect_refused("{{ '{:99999999999}'.format(1) }}", "longer than");
  expect_refused("{{ '%*d' % (9999999999, 1) }}", "longer than");
  expect_refused("{{ [1] | tojson(indent=9999999999) }}", "");
  expect_refused("{{ 'a'.zfill(9999999999) }}", "");
  expect_refused("{{ '\t'.expandtabs(9999999999) }}", "");
  expect_refused("{{ 'x' | indent(9999999999) }}", "");
  const TemplateLimits small{.max_output_bytes = 1000};
  expect_refused("{% for i in range(2000) %}x{% endfor %}", "longer than 1000 bytes", {}, small);
  expect_refused(times("x", 1001), "longer than 1000 bytes", {}, small);
  expect_refused("{{ ('a' * 900).replace('a', 'b' * 900) | length }}", "longer than 1000 bytes", {}, small);
  expect_refused("{{ (['a' * 900] * 900) | join | length }}", "longer than 1000 bytes", {}, small);
  expect_refused("{% set x = 'a' * 900 %}{{ (x ~ x) | length }}", "longer than 1000 bytes", {}, small);
  const std::string doubling =
      "{% set ns = namespace(s='ab') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}";
  expect_refused(doubling, "longer than");
  EXPECT_TRUE(run(times("x", 1000), {}, small).ok());
}

TEST(JinjaLimits, RangesAndNumbers) {
  expect_refused("{{ range(100001) | length }}", "Range too big");
  expect_refused("{{ range(-9223372036854775807, 9223372036854775807) }}", "Range too big");
  expect_refused("{{ 2 ** 64 }}", "64 bits");
  expect_refused("{{ 9 ** 999999999 }}", "64 bits");
  expect_refused("{{ 18446744073709551615 * 18446744073709551615 }}", "64 bits");
  expect_refused("{{ -9223372036854775807 - 2 }}", "64 bits");
  EXPECT_EQ(*run("{{ 18446744073709551615 }} {{ -9223372036854775807 - 1 }} {{ 2 ** 63 }}"),
            "18446744073709551615 -9223372036854775808 9223372036854775808");
  EXPECT_EQ(*run("{{ 'abc'[::9223372036854775807] ~ 'abc'[::-9223372036854775807] ~ 'abc'[-9223372036854775807:] }}"),
            "acabc");
}

TEST(JinjaLimits, Calls) {
  expect_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deep");
  expect_refused("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", "deep");
  expect_refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "deep");
  expect_refused("{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}", "");
  EXPECT_EQ(*run("{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) | length }}"), "92");
}

TEST(JinjaLimits, NestedSource) {
  for (const std::size_t n : {std::size_t{300}, std::size_t{100'000}}) {
    expect_refused("{{ " + times("(", n) + "1" + times(")", n) + " }}", "too deeply");
    expect_refused("{{ " + times("[", n) + times("]", n) + " }}", "too deeply");
    expect_refused("{{ " + times("{1:", n) + "1" + times("}", n) + " }}", "too deeply");
    expect_refused("{{ " + times("-", n) + "1 }}", "too deeply");
    expect_refused("{{ " + times("not ", n) + "1 }}", "too deeply");
    expect_refused("{{ " + times("x[", n) + "1" + times("]", n) + " }}", "too deeply");
    expect_refused("{{ " + times("f(", n) + "1" + times(")", n) + " }}", "too deeply");
    expect_refused("{{ " + times("1 if 1 else ", n) + "1 }}", "too deeply");
    expect_refused(times("{% if 1 %}", n) + times("{% endif %}", n), "too deeply");
    expect_refused(times("{% for x in y %}", n) + times("{% endfor %}", n), "too deeply");
    expect_refused("{% set " + times("(", n) + "a" + times(")", n) + " = 1 %}", "too deeply");
  }
  expect_refused("{{ 1" + times("|abs", 100'000) + " }}", "too deeply");
  expect_refused("{{ x" + times(".y", 100'000) + " }}", "too deeply");
  expect_refused("{{ x" + times("()", 100'000) + " }}", "too deeply");
  expect_refused("{{ 1" + times("+1", 100'000) + " }}", "too deeply");
  // Long but flat is fine.
  EXPECT_EQ(*run("{{ 0" + times("+1", 900) + " }}"), "900");
  EXPECT_EQ(run("{{ 'a'" + times("~'a'", 20'000) + " }}")->size(), 20'001U);
  EXPECT_EQ(*run("{{ 0" + times(" or 0", 20'000) + " }}"), "0");
  EXPECT_EQ(*run("{% if 0 %}" + times("{% elif 0 %}", 20'000) + "{% else %}x{% endif %}"), "x");
  EXPECT_EQ(*run("{{ " + times("(", 50) + "1" + times(")", 50) + " }}"), "1");
}

TEST(JinjaLimits, NestedData) {
  Json deep = 1;
  for (int i = 0; i < 3000; ++i) deep = Json::array({std::move(deep)});
  expect_refused("{{ x }}", "nested", {{"x", deep}});
  expect_refused("{% set ns = namespace(a=[]) %}{% for i in range(5000) %}{% set ns.a = [ns.a] %}{% endfor %}",
                 "nested more than");
  expect_refused("{% set ns = namespace(a={}) %}{% for i in range(5000) %}{% set ns.a = {'a': ns.a} %}{% endfor %}",
                 "nested more than");
  expect_refused(
      "{% set ns = namespace(a=[1]) %}{% for i in range(5000) %}{% set ns.a = ns.a | map('string') %}{% endfor %}",
      "nested more than");
  expect_refused("{% set ns = namespace(a='') %}{% for i in range(5000) %}{% set ns.a = cycler(ns.a) %}{% endfor %}",
                 "nested more than");
  Json fine = 1;
  for (int i = 0; i < 100; ++i) fine = Json::array({std::move(fine)});
  EXPECT_EQ(*run("{{ x }}", {{"x", fine}}), times("[", 100) + "1" + times("]", 100));
}

// Things a template can make that hold each other in circles, or in chains as long as it likes: freeing them must
// neither leak (the sanitizers look) nor recurse.
TEST(JinjaLimits, CirclesAndChains) {
  EXPECT_EQ(*run("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.list = [ns] %}x"), "x");
  expect_refused("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", "too deeply");
  EXPECT_EQ(*run("{% set ns = namespace() %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.m = m %}x"), "x");
  EXPECT_EQ(
      *run(
          "{% set ns = namespace(f=none) %}{% for i in range(50000) %}{% set ns.f = namespace(f=ns.f) %}{% endfor %}x"),
      "x");
  EXPECT_EQ(*run("{% set ns = namespace(f=none) %}{% macro mk(p) %}{% macro inner() %}{{ p }}{% endmacro %}"
                 "{% set ns.f = inner %}{% endmacro %}{% for i in range(50000) %}{{ mk(ns.f) }}{% endfor %}x"),
            "x");
  EXPECT_EQ(*run("{% set ns = namespace(l=none) %}{% for i in range(50000) %}{% for x in [0] %}"
                 "{% if loop.changed(ns.l) %}{% endif %}{% set ns.l = loop %}{% endfor %}{% endfor %}x"),
            "x");
  EXPECT_EQ(*run("{% set ns = namespace(l=none) %}{% macro f(p) %}{% for x in [1] recursive %}{% set ns.l = loop %}"
                 "{% endfor %}{% endmacro %}{% for i in range(50000) %}{{ f(ns.l) }}{% endfor %}x"),
            "x");
}

TEST(Jinja, ValidatesText) {
  EXPECT_NE(ChatTemplate::parse("a\xff", {}).status().message().find("not UTF-8"), std::string::npos);
  expect_refused("{{ x }}", "not UTF-8", {{"x", "a\xff"}});
  expect_refused("{{ x }}", "not UTF-8", {{"x", {{"\xc0\x80", 1}}}});
  const auto huge = ChatTemplate::parse(std::string(std::size_t{5} << 20, 'x'), {});
  EXPECT_FALSE(huge.ok());
}

}  // namespace
}  // namespace penstock
