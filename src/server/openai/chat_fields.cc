// Messages, tools and template variables of a chat request, brought into the form chat templates expect.
#include <algorithm>
#include <array>

#include "server/openai/call.h"

namespace penstock::openai {
namespace {

constexpr const char* kTextOnly = "; this server takes text only";

std::string at(const std::string& path, std::size_t index) {
  return path + '[' + std::to_string(index) + ']';
}

// content: a string, or an array of {type: "text", text}. null stays null.
bool read_content(Reader& reader, const std::string& path, bool template_takes_parts, Json* content) {
  if (content->is_string() || content->is_null()) return true;
  if (!content->is_array()) {
    reader.fail(bad_request(path, path + " must be a string or an array of text parts, not " + type_name(*content)));
    return false;
  }
  std::string joined;
  for (std::size_t i = 0; i < content->size(); ++i) {
    Json& part = (*content)[i];
    if (part.is_string()) part = Json{{"type", "text"}, {"text", part}};
    const Json type = part.is_object() ? part.value("type", Json()) : Json();
    const std::string where = at(path, i);
    if (!type.is_string()) {
      reader.fail(
          bad_request(where, where + " must be an object with a type, as {\"type\": \"text\", \"text\": \"…\"}"));
      return false;
    }
    if (type != "text") {
      reader.fail(not_supported(where, where + " has the type '" + type.get<std::string>() + "'" + kTextOnly));
      return false;
    }
    const Json text = part.value("text", Json());
    if (!text.is_string()) {
      reader.fail(bad_request(where + ".text", where + ".text must be a string, not " + type_name(text)));
      return false;
    }
    if (i > 0) joined += '\n';
    joined += text.get_ref<const std::string&>();
  }
  if (!template_takes_parts) *content = joined;
  return true;
}

// Clients send a call's arguments as JSON text; templates iterate over them.
bool read_tool_calls(Reader& reader, const std::string& path, Json* calls) {
  if (!calls->is_array()) {
    reader.fail(bad_request(path, path + " must be an array, not " + type_name(*calls)));
    return false;
  }
  for (std::size_t i = 0; i < calls->size(); ++i) {
    Json& call = (*calls)[i];
    const std::string where = at(path, i) + ".function";
    const bool is_function = call.is_object() && call.contains("function") && call["function"].is_object();
    if (!is_function || !call["function"].value("name", Json()).is_string()) {
      reader.fail(bad_request(where, where + " must be an object with a name and arguments"));
      return false;
    }
    Json& function = call["function"];
    if (!function.contains("arguments") || function["arguments"].is_null()) {
      function["arguments"] = Json::object();
      continue;
    }
    Json& arguments = function["arguments"];
    if (arguments.is_object()) continue;
    if (!arguments.is_string()) {
      reader.fail(
          bad_request(where + ".arguments", where + ".arguments must be JSON text, not " + type_name(arguments)));
      return false;
    }
    const auto text = arguments.get<std::string>();
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
      arguments = Json::object();
      continue;
    }
    auto parsed = parse_json(text);
    if (!parsed.ok() || !parsed->is_object()) {
      reader.fail(bad_request(where + ".arguments", where + ".arguments must be a JSON object written as text" +
                                                        (parsed.ok() ? "" : ": " + parsed.status().message())));
      return false;
    }
    arguments = *std::move(parsed);
  }
  return true;
}

bool read_message(Reader& reader, const std::string& path, bool template_takes_parts, Json* message) {
  if (!message->is_object()) {
    reader.fail(bad_request(path, path + " must be an object, not " + type_name(*message)));
    return false;
  }
  const Json role = message->value("role", Json());
  constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};
  if (!role.is_string() ||
      std::find(kRoles.begin(), kRoles.end(), role.get_ref<const std::string&>()) == kRoles.end()) {
    reader.fail(bad_request(path + ".role", path + ".role must be system, developer, user, assistant or tool, got " +
                                                (role.is_string() ? role.dump() : type_name(role))));
    return false;
  }
  if (role == "developer") (*message)["role"] = "system";  // OpenAI's newer word for it; templates know the older one
  const bool has_calls = message->contains("tool_calls") && !(*message)["tool_calls"].is_null();
  if (!message->contains("content")) (*message)["content"] = nullptr;
  Json& content = (*message)["content"];
  if (content.is_null()) {
    if (role != "assistant") {
      reader.fail(bad_request(path + ".content", path + ".content is missing"));
      return false;
    }
    content = "";
  }
  if (!read_content(reader, path + ".content", template_takes_parts, &content)) return false;
  if (has_calls && !read_tool_calls(reader, path + ".tool_calls", &(*message)["tool_calls"])) return false;
  if (!has_calls) message->erase("tool_calls");
  // The newer name of what templates know as reasoning_content.
  if (message->contains("reasoning") && !message->contains("reasoning_content")) {
    (*message)["reasoning_content"] = (*message)["reasoning"];
  }
  for (const char* name : {"reasoning_content", "name", "tool_call_id"}) {
    if (!message->contains(name)) continue;
    const Json& value = (*message)[name];
    if (value.is_null()) {
      message->erase(name);
    } else if (!value.is_string()) {
      reader.fail(bad_request(path + '.' + name, path + '.' + name + " must be a string, not " + type_name(value)));
      return false;
    }
  }
  return true;
}

void read_tools(Reader& reader, Json* tools) {
  const Json* value = reader.find("tools");
  if (value == nullptr) return;
  if (!value->is_array()) return reader.fail("tools", std::string("must be an array, not ") + type_name(*value));
  for (std::size_t i = 0; i < value->size(); ++i) {
    const Json& tool = (*value)[i];
    const std::string where = at("tools", i);
    if (!tool.is_object() || tool.value("type", Json()) != "function") {
      return reader.fail(bad_request(where + ".type", where + ".type must be 'function'"));
    }
    const Json function = tool.value("function", Json());
    if (!function.is_object() || !function.value("name", Json()).is_string()) {
      return reader.fail(bad_request(where + ".function", where + ".function must be an object with a name"));
    }
  }
  if (!value->empty()) *tools = *value;
}

void read_tool_choice(Reader& reader, Json* tools) {
  const Json* choice = reader.find("tool_choice");
  if (choice == nullptr || *choice == "auto") return;
  if (*choice == "none") {
    *tools = nullptr;  // what the model does not see it cannot call
    return;
  }
  const bool known = *choice == "required" || choice->is_object();
  if (!known) return reader.fail("tool_choice", "must be 'none', 'auto', 'required' or an object naming a function");
  reader.fail(not_supported("tool_choice", "tool_choice is not supported yet except 'none' and 'auto'"));
}

void read_kwargs(Reader& reader, Json* kwargs) {
  *kwargs = Json::object();
  if (const Json* value = reader.find("chat_template_kwargs")) {
    if (!value->is_object()) {
      return reader.fail("chat_template_kwargs", std::string("must be an object, not ") + type_name(*value));
    }
    for (const char* name : {"messages", "tools", "add_generation_prompt"}) {
      if (value->contains(name)) {
        return reader.fail("chat_template_kwargs", std::string("must not hold ") + name + "; it has its own field");
      }
    }
    *kwargs = *value;
  }
  if (const auto thinking = reader.boolean("enable_thinking"); thinking && !kwargs->contains("enable_thinking")) {
    (*kwargs)["enable_thinking"] = *thinking;
  }
  if (const auto effort = reader.string("reasoning_effort"); effort && !kwargs->contains("reasoning_effort")) {
    (*kwargs)["reasoning_effort"] = *effort;
  }
}

}  // namespace

void read_chat_input(Reader& reader, const CallContext& context, ChatInput* chat) {
  const Json* messages = reader.find("messages");
  if (messages == nullptr) return reader.fail("messages", "is missing");
  if (!messages->is_array())
    return reader.fail("messages", std::string("must be an array, not ") + type_name(*messages));
  if (messages->empty()) return reader.fail("messages", "must not be empty");
  if (context.model.chat_template == nullptr) {
    return reader.fail(not_supported("messages", "this model has no chat template; use /v1/completions"));
  }
  chat->input.messages = *messages;
  for (std::size_t i = 0; i < messages->size(); ++i) {
    if (!read_message(reader, at("messages", i), context.template_takes_parts, &chat->input.messages[i])) return;
  }
  read_tools(reader, &chat->input.tools);
  read_tool_choice(reader, &chat->input.tools);
  read_kwargs(reader, &chat->input.kwargs);
  for (const char* name : {"chat_template", "documents"}) {
    const Json* value = reader.find(name);
    if (value != nullptr && !value->empty()) {
      reader.fail(not_supported(name, std::string(name) + " is not supported: the model's own template is used"));
    }
  }
  chat->continue_final_message = reader.boolean("continue_final_message").value_or(false);
  const auto add_prompt = reader.boolean("add_generation_prompt");
  chat->input.add_generation_prompt = add_prompt.value_or(!chat->continue_final_message);
  if (chat->continue_final_message && chat->input.add_generation_prompt) {
    reader.fail("continue_final_message", "and add_generation_prompt exclude each other");
  }
}

std::optional<ApiError> read_chat_call(const Json& body, const CallContext& context, Call* call) {
  Reader reader(body);
  call->chat = true;
  read_common_fields(reader, context, call);
  read_chat_input(reader, context, &call->chat_input);
  const bool logprobs = reader.boolean("logprobs").value_or(false);
  const auto top = reader.integer("top_logprobs", 0, 20);
  if (top && *top > 0 && !logprobs) reader.fail("top_logprobs", "is only allowed together with logprobs: true");
  if (logprobs) call->base.logprobs = static_cast<std::int32_t>(top.value_or(0));
  if (const Json* modalities = reader.find("modalities");
      modalities != nullptr && *modalities != Json::array({"text"})) {
    reader.fail(not_supported("modalities", std::string("modalities must be [\"text\"]") + kTextOnly));
  }
  if (const Json* audio = reader.find("audio"); audio != nullptr) {
    reader.fail(not_supported("audio", std::string("audio is not supported") + kTextOnly));
  }
  log_ignored_fields(reader);
  return reader.error();
}

}  // namespace penstock::openai
