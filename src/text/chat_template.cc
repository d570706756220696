#include "text/chat_template.h"

#include <array>
#include <exception>
#include <fstream>
#include <iterator>
#include <utility>

#include "text/jinja/interpreter.h"
#include "text/jinja/lexer.h"
#include "text/jinja/parser.h"
#include "text/jinja/unicode.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;
using jinja::Value;

constexpr std::size_t kMaxTemplateBytes = std::size_t{4} << 20;  // the longest published ones have some 20 KiB
constexpr std::size_t kMaxConfigBytes = std::size_t{64} << 20;   // tokenizer_config.json lists all added tokens

std::string place(std::string_view source, std::uint32_t at) {
  if (at == jinja::kNoPosition) return "chat template: ";
  const jinja::Position position = jinja::position_of(source, at);
  return "chat template, line " + std::to_string(position.line) + ", column " + std::to_string(position.column) + ": ";
}

Status to_status(const jinja::Error& error, std::string_view source) {
  // What a template says itself is meant for the client and stands alone.
  if (error.kind() == jinja::ErrorKind::kRaised) return invalid_argument(error.what());
  return invalid_argument(place(source, error.at()) + error.what());
}

// A message as transformers gives it to templates: keys with null are left out; reasoning goes by three names, of which
// templates read the first two.
Value message_value(jinja::Budget& budget, const Json& message, const std::string& where) {
  const auto reasoning = [&]() -> Value {
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      const auto it = message.find(name);
      if (it != message.end() && !it->is_null()) return jinja::from_json(budget, *it, true, where);
    }
    return {};
  }();
  auto dict = std::make_shared<jinja::Dict>();
  const auto set = [&](const std::string& key, Value value) {
    if (jinja::find_invalid_utf8(key)) jinja::fail(where + " has text that is not UTF-8");
    dict->set(budget, Value::str(jinja::make_str(key, true)), std::move(value));
  };
  if (!reasoning.is_missing()) set("thinking", reasoning);
  for (const auto& [key, value] : message.items()) {
    if (!value.is_null()) set(key, jinja::from_json(budget, value, true, where));
  }
  if (!reasoning.is_missing()) set("reasoning_content", reasoning);
  return Value::dict(std::move(dict));
}

Status check_input(const ChatTemplateInput& input) {
  if (!input.messages.is_array()) return invalid_argument("messages must be a list");
  if (input.messages.empty()) {
    return invalid_argument("messages is empty: a chat template needs at least one message");
  }
  for (std::size_t i = 0; i < input.messages.size(); ++i) {
    if (!input.messages[i].is_object())
      return invalid_argument("messages[" + std::to_string(i) + "] must be an object");
  }
  if (!input.tools.is_null()) {
    if (!input.tools.is_array()) return invalid_argument("tools must be a list or null");
    for (std::size_t i = 0; i < input.tools.size(); ++i) {
      if (!input.tools[i].is_object()) return invalid_argument("tools[" + std::to_string(i) + "] must be an object");
    }
  }
  if (!input.kwargs.is_null() && !input.kwargs.is_object()) {
    return invalid_argument("template variables must be an object");
  }
  for (const char* name : {"messages", "tools"}) {
    if (input.kwargs.is_object() && input.kwargs.contains(name)) {
      return invalid_argument(std::string("template variables cannot contain '") + name + "'");
    }
  }
  return {};
}

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(std::shared_ptr<const jinja::Template> parsed, Json special_tokens)
      : template_(std::move(parsed)), special_tokens_(std::move(special_tokens)) {}

  Expected<std::string> render(const ChatTemplateInput& input, const TemplateLimits& limits) const override {
    PENSTOCK_ASSIGN_OR_RETURN(const jinja::StrPtr text, run(input, limits));
    return text->text;
  }

  Expected<std::vector<RenderedPiece>> render_pieces(const ChatTemplateInput& input,
                                                     const TemplateLimits& limits) const override {
    PENSTOCK_ASSIGN_OR_RETURN(const jinja::StrPtr text, run(input, limits));
    std::vector<RenderedPiece> pieces;
    const auto add = [&](std::size_t begin, std::size_t end, bool user) {
      if (begin < end) pieces.push_back({text->text.substr(begin, end - begin), user});
    };
    std::size_t at = 0;
    for (const jinja::Span& span : text->user) {
      add(at, span.begin, false);
      add(span.begin, span.end, true);
      at = span.end;
    }
    add(at, text->text.size(), false);
    return pieces;
  }

 private:
  Expected<jinja::StrPtr> run(const ChatTemplateInput& input, const TemplateLimits& limits) const {
    PENSTOCK_RETURN_IF_ERROR(check_input(input));
    try {
      jinja::Interpreter interpreter(*template_, limits, input.now ? &*input.now : nullptr);
      set_variables(interpreter, input);
      return interpreter.run();
    } catch (const jinja::Error& error) {
      return to_status(error, template_->source);
    } catch (const std::exception& error) {
      return internal_error(std::string("chat template: ") + error.what());
    }
  }

  void set_variables(jinja::Interpreter& interpreter, const ChatTemplateInput& input) const {
    jinja::Budget& budget = interpreter.budget();
    const auto set_all = [&](const Json& values, bool user) {
      if (!values.is_object()) return;
      for (const auto& [name, value] : values.items()) {
        interpreter.set_variable(name, jinja::from_json(budget, value, user, "the variable '" + name + "'"));
      }
    };
    interpreter.set_variable("documents", Value::none());
    interpreter.set_variable("add_generation_prompt", Value::boolean(input.add_generation_prompt));
    set_all(special_tokens_, false);
    set_all(input.kwargs, true);

    std::vector<Value> messages;
    for (std::size_t i = 0; i < input.messages.size(); ++i) {
      const std::string where = "messages[" + std::to_string(i) + "]";
      messages.push_back(message_value(budget, input.messages[i], where));
    }
    interpreter.set_variable("messages", Value::list(budget, std::move(messages)));
    interpreter.set_variable("tools", jinja::from_json(budget, input.tools, true, "tools"));
  }

  std::shared_ptr<const jinja::Template> template_;
  Json special_tokens_;
};

Expected<std::string> read_text(const std::filesystem::path& path, std::size_t max_bytes) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return not_found(path.string() + ": " + error.message());
  if (size > max_bytes) {
    return invalid_argument(path.string() + " is larger than " + std::to_string(max_bytes) + " bytes");
  }
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) return not_found(path.string() + " cannot be read");
  return text;
}

Expected<Json> read_json(const std::filesystem::path& path) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string text, read_text(path, kMaxConfigBytes));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return corrupt(path.string() + " is not JSON");
  if (!json.is_object()) return corrupt(path.string() + " is not a JSON object");
  return json;
}

// eos_token and the like: a string, or an added token's object.
Json special_tokens_of(const Json& config) {
  constexpr std::array<const char*, 7> kNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                 "pad_token", "cls_token", "mask_token"};
  Json tokens = Json::object();
  for (const char* name : kNames) {
    const auto it = config.find(name);
    if (it == config.end()) continue;
    const Json& token = it->is_object() && it->contains("content") ? (*it)["content"] : *it;
    if (token.is_string()) tokens[name] = token;
  }
  const auto more = config.find("additional_special_tokens");
  if (more != config.end() && more->is_array()) tokens["additional_special_tokens"] = *more;
  return tokens;
}

// A chat_template entry: the template, or a list of named ones.
Expected<std::string> template_text(const Json& entry, const std::string& where) {
  if (entry.is_string()) return entry.get<std::string>();
  if (!entry.is_array()) return corrupt(where + ": chat_template is neither text nor a list");
  for (const Json& named : entry) {
    if (!named.is_object() || named.value("name", Json()) != Json("default")) continue;
    const auto text = named.find("template");
    if (text != named.end() && text->is_string()) return text->get<std::string>();
  }
  return not_found(where + ": none of the chat templates is called \"default\"");
}

}  // namespace

Expected<std::unique_ptr<ChatTemplate>> ChatTemplate::parse(std::string_view source, Json special_tokens) {
  if (source.size() > kMaxTemplateBytes) {
    return invalid_argument("chat template: longer than " + std::to_string(kMaxTemplateBytes) + " bytes");
  }
  if (!special_tokens.is_null() && !special_tokens.is_object()) {
    return invalid_argument("special tokens must be an object");
  }
  if (const auto at = jinja::find_invalid_utf8(source)) {
    return invalid_argument("chat template: byte " + std::to_string(*at) + " is not UTF-8");
  }
  std::string normalised;
  try {
    auto parsed = jinja::parse_template(source, normalised);
    return std::unique_ptr<ChatTemplate>(
        std::make_unique<JinjaChatTemplate>(std::move(parsed), std::move(special_tokens)));
  } catch (const jinja::Error& error) {
    return to_status(error, normalised);
  } catch (const std::exception& error) {
    return internal_error(std::string("chat template: ") + error.what());
  }
}

Expected<std::unique_ptr<ChatTemplate>> ChatTemplate::load(const std::filesystem::path& dir) {
  const auto exists = [&](const char* name) {
    std::error_code error;
    return std::filesystem::is_regular_file(dir / name, error);
  };
  Json config = Json::object();
  if (exists("tokenizer_config.json")) {
    PENSTOCK_ASSIGN_OR_RETURN(config, read_json(dir / "tokenizer_config.json"));
  }
  std::filesystem::path from = dir / "chat_template.jinja";
  std::string source;
  if (exists("chat_template.jinja")) {
    PENSTOCK_ASSIGN_OR_RETURN(source, read_text(from, kMaxTemplateBytes));
  } else if (config.contains("chat_template") && !config["chat_template"].is_null()) {
    from = dir / "tokenizer_config.json";
    PENSTOCK_ASSIGN_OR_RETURN(source, template_text(config["chat_template"], from.string()));
  } else if (exists("chat_template.json")) {
    from = dir / "chat_template.json";
    PENSTOCK_ASSIGN_OR_RETURN(Json file, read_json(from));
    PENSTOCK_ASSIGN_OR_RETURN(source, template_text(file["chat_template"], from.string()));
  } else {
    return not_found(dir.string() +
                     " has no chat template: neither chat_template.jinja nor a chat_template in tokenizer_config.json");
  }
  auto parsed = parse(source, special_tokens_of(config));
  if (!parsed.ok()) return parsed.status().with_context(from.string());
  return parsed;
}

}  // namespace penstock
