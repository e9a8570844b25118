// A cleaner of correspondence: two processes in dialogue write one stream forward and one reversed.
//
// The clerk has the letters, line by line, and the scribe knows how a line is cleaned. The clerk sends each raw line and gets it
// back clean, and writes it to the forward stream. Neither keeps more than its part: for the reversed stream the clerk asks
// for the lines by number, the last first, and the scribe, who has kept them, gives them one by one. Each message is an answer to
// the one before, so one duplex pipe is enough; either one's death is told to the other at once.
//
// Prints expected/correspondence.txt.

#include <cctype>
#include <cstdio>
#include <string>
#include <tuple>
#include <vector>

#include <ringlet/ipc/message.hpp>
#include <ringlet/process.hpp>

namespace {

using ringlet::ipc::end;

// Spaces in a row are one, none are at the ends; what is quoted from the letter before is dropped.
std::string cleaned(const std::string& raw) {
  std::string text;
  for (char c : raw) {
    if (!std::isspace(static_cast<unsigned char>(c)))
      text += c;
    else if (!text.empty() && text.back() != ' ')
      text += ' ';
  }
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text.starts_with(">") ? "" : text;
}

// Asked ("clean", line) it answers the clean line, and keeps it; asked ("recall", number) the line of that number.
void scribe(end clerk) {
  std::vector<std::string> kept;
  try {
    while (true) {
      const auto [what, text, number] = *clerk.receive<std::tuple<std::string, std::string, std::size_t>>();
      if (what == "clean") {
        const std::string line = cleaned(text);
        if (!line.empty()) kept.push_back(line);
        clerk.send(line);
      } else {
        clerk.send(kept.at(number));
      }
    }
  } catch (const ringlet::ipc::end_of_pipe&) {  // the clerk is done
  }
}

int clerk(end to_scribe, end forward, end reversed) {
  const std::vector<std::string> letters{"  Dear   Ada,", "> how is the engine?", "the engine\truns   well.", "", "   It wants  oil. ", "Yours, Charles"};
  const auto ask = [&](const std::string& what, const std::string& text, std::size_t number) {
    to_scribe.send(std::tuple(what, text, number));
    return *to_scribe.receive<std::string>();
  };
  std::size_t count = 0;
  for (const auto& raw : letters) {
    const std::string line = ask("clean", raw, 0);
    if (line.empty()) continue;
    forward.send(line);
    ++count;
  }
  forward.close();
  while (count > 0) {
    --count;
    reversed.send(ask("recall", "", count));
  }
  return 0;
}

void print(const char* name, end& stream) {
  std::printf("%s:\n", name);
  try {
    while (const auto line = stream.receive<std::string>()) std::printf("  %s\n", line->c_str());
  } catch (const ringlet::ipc::end_of_pipe&) {
  }
}

}  // namespace

int main() {
  auto dialogue = ringlet::ipc::duplex();
  auto forward = ringlet::ipc::pipe();
  auto reversed = ringlet::ipc::pipe();
  ringlet::process second(scribe, std::move(dialogue.second));
  ringlet::process first(clerk, std::move(dialogue.first), std::move(forward.writer), std::move(reversed.writer));
  second.start();
  first.start();
  print("forward", forward.reader);
  print("reversed", reversed.reader);
  first.join();
  second.join();
  std::printf("both have ended well: %s\n", *first.exit_code() == 0 && *second.exit_code() == 0 ? "yes" : "no");
}
