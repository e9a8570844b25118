// The crawler's parts that need no network: tables of what a URL, a robots.txt and a page mean.

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "links.hpp"
#include "page.hpp"
#include "report.hpp"
#include "robots.hpp"
#include "store.hpp"
#include "url.hpp"

namespace {

int failures = 0;  // of the case that runs now

void expect(const std::string& subject, const std::string& got, const std::string& wanted) {
  if (got == wanted) return;
  ++failures;
  std::printf("  %s\n    wanted %s\n    got    %s\n", subject.c_str(), wanted.c_str(), got.c_str());
}

void expect(const std::string& subject, bool got, bool wanted) {
  expect(subject, std::string(got ? "yes" : "no"), wanted ? "yes" : "no");
}

std::string text_of(const std::optional<crawl::url>& from) { return from ? from->text() : "nothing"; }

// RFC 3986 section 5.4, with http for its base, and the fragments gone.
void references_of_the_rfc() {
  const auto base = *crawl::parse_url("http://a/b/c/d;p?q");
  const struct { const char *reference, *wanted; } table[] = {
      {"g", "http://a/b/c/g"},           {"./g", "http://a/b/c/g"},        {"g/", "http://a/b/c/g/"},
      {"/g", "http://a/g"},              {"//g", "http://g/"},             {"?y", "http://a/b/c/d;p?y"},
      {"g?y", "http://a/b/c/g?y"},       {"#s", "http://a/b/c/d;p?q"},     {"g#s", "http://a/b/c/g"},
      {"g?y#s", "http://a/b/c/g?y"},     {";x", "http://a/b/c/;x"},        {"g;x", "http://a/b/c/g;x"},
      {"g;x?y#s", "http://a/b/c/g;x?y"}, {"", "http://a/b/c/d;p?q"},       {".", "http://a/b/c/"},
      {"./", "http://a/b/c/"},           {"..", "http://a/b/"},            {"../", "http://a/b/"},
      {"../g", "http://a/b/g"},          {"../..", "http://a/"},           {"../../", "http://a/"},
      {"../../g", "http://a/g"},         {"../../../g", "http://a/g"},     {"../../../../g", "http://a/g"},
      {"/./g", "http://a/g"},            {"/../g", "http://a/g"},          {"g.", "http://a/b/c/g."},
      {".g", "http://a/b/c/.g"},         {"g..", "http://a/b/c/g.."},      {"..g", "http://a/b/c/..g"},
      {"./../g", "http://a/b/g"},        {"./g/.", "http://a/b/c/g/"},     {"g/./h", "http://a/b/c/g/h"},
      {"g/../h", "http://a/b/c/h"},      {"g;x=1/./y", "http://a/b/c/g;x=1/y"},
      {"g;x=1/../y", "http://a/b/c/y"},  {"g?y/./x", "http://a/b/c/g?y/./x"},
      {"g?y/../x", "http://a/b/c/g?y/../x"}, {"g#s/../x", "http://a/b/c/g"}, {"http:g", "http://a/b/c/g"},
      {"g:h", "nothing"},
  };
  for (const auto& row : table)
    expect(std::string("resolve ") + row.reference, text_of(crawl::resolve(base, row.reference)), row.wanted);
}

void urls_are_normalised() {
  const struct { const char *given, *wanted; } table[] = {
      {"HTTP://ExAmple.COM", "http://example.com/"},
      {"http://a:80/x", "http://a/x"},
      {"https://a:443/x", "https://a/x"},
      {"https://a:80/x", "https://a:80/x"},
      {"http://a:/x", "http://a/x"},
      {"http://a:0080/x", "http://a/x"},
      {"http://a:8080", "http://a:8080/"},
      {"http://a:65536/", "nothing"},
      {"http://a:0/", "nothing"},
      {"http://a:b/", "nothing"},
      {"http://user:secret@a/x", "http://a/x"},
      {"http://[::1]:8000/", "http://[::1]:8000/"},
      {"http://[::1]/", "http://[::1]/"},
      {"http://[::1/", "nothing"},
      {"http:///x", "nothing"},
      {"http://a b/", "nothing"},
      {"http://a?q", "http://a/?q"},
      {"http://a/?", "http://a/?"},
      {"http://a/%7euser/%2fx%2F", "http://a/~user/%2Fx%2F"},
      {"http://a/%zz%4", "http://a/%25zz%254"},
      {"http://a/a b\xc3\xa9", "http://a/a%20b%C3%A9"},
      {"http://a/x/%2E%2e/y", "http://a/y"},
      {"http://a/x//y/../z", "http://a/x//z"},
      {"  http://a/x\n", "http://a/x"},
      {"http://a/x\n/y", "http://a/x/y"},
      {"http:\\\\a\\x?y\\z", "http://a/x?y%5Cz"},
      {"http://a/x?b=1&c=[2]", "http://a/x?b=1&c=%5B2%5D"},
      {"ftp://a/", "nothing"},
      {"mailto:x@a", "nothing"},
      {"javascript:void(0)", "nothing"},
      {"data:text/html,x", "nothing"},
      {"//a/x", "nothing"},
      {"", "nothing"},
  };
  for (const auto& row : table) expect(std::string("parse ") + row.given, text_of(crawl::parse_url(row.given)), row.wanted);
  expect("directory", crawl::parse_url("http://a/b/c?d/e")->directory(), "/b/");
  expect("target", crawl::parse_url("http://a/b?c=d")->target(), "/b?c=d");
  for (const char* text : {"http://localhost/", "http://127.0.0.1:8/", "http://[::1]/", "http://x.localhost/"})
    expect(std::string("loopback ") + text, crawl::parse_url(text)->is_loopback(), true);
  for (const char* text : {"http://127.example.com/", "http://localhost.com/", "http://10.0.0.1/"})
    expect(std::string("loopback ") + text, crawl::parse_url(text)->is_loopback(), false);
}

void robots_rules() {
  const struct { const char *file, *target; bool wanted; } table[] = {
      {"", "/x", true},
      {"User-agent: *\nDisallow: /x", "/x/y", false},
      {"User-agent: *\nDisallow: /x", "/X", true},
      {"User-agent: *\nDisallow:\n", "/x", true},
      {"user-agent:*\ndisallow :/x # why\n", "/x", false},
      {"User-agent: *\r\nDisallow: /x\r\n", "/x", false},
      {"\xEF\xBB\xBFUser-agent: *\rDisallow: /x\r", "/x", false},
      {"Disallow: /x\n", "/x", true},  // no group
      // our own group hides the one for all, even if it is empty; its parts are merged
      {"User-agent: *\nDisallow: /\n\nUser-agent: test-bot\nDisallow: /x", "/y", true},
      {"User-agent: *\nDisallow: /\n\nUser-agent: TEST-BOT/2.0\nDisallow: /x", "/x", false},
      {"User-agent: *\nDisallow: /\n\nUser-agent: test-bot\nSitemap: /s", "/y", true},
      {"User-agent: test-bot\nDisallow: /x\n\nUser-agent: *\nDisallow: /\n\nUser-agent: test-bot\nDisallow: /y", "/y", false},
      {"User-agent: test-bot\nDisallow: /x\n\nUser-agent: *\nDisallow: /\n\nUser-agent: test-bot\nDisallow: /y", "/z", true},
      {"User-agent: other\nUser-agent: test-bot\nDisallow: /x", "/x", false},
      {"User-agent: other\nSitemap: /s\nUser-agent: test-bot\n\nDisallow: /x", "/x", false},
      {"User-agent: test-bot-news\nDisallow: /", "/x", true},
      {"User-agent: test\nDisallow: /", "/x", true},
      // the longest match; Allow wins a tie
      {"User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", true},
      {"User-agent: *\nAllow: /a\nDisallow: /a/b", "/a/b/c", false},
      {"User-agent: *\nDisallow: /a\nAllow: /a", "/a", true},
      {"User-agent: *\nAllow: /p\nDisallow: /", "/page", true},
      {"User-agent: *\nAllow: /folder\nDisallow: /*.htm", "/page.htm", false},
      {"User-agent: *\nAllow: /page\nDisallow: /*.htm", "/page.htm", false},
      {"User-agent: *\nAllow: /$\nDisallow: /", "/", true},
      {"User-agent: *\nAllow: /$\nDisallow: /", "/page", false},
      // wildcards
      {"User-agent: *\nDisallow: *.gif$", "/a/b.gif", false},
      {"User-agent: *\nDisallow: *.gif$", "/a/b.gif?x", true},
      {"User-agent: *\nDisallow: /a*b*c", "/a--b--b--c--", false},
      {"User-agent: *\nDisallow: /a*b*c$", "/a-b-c-c", false},
      {"User-agent: *\nDisallow: /a*b*c$", "/a-b-c-d", true},
      {"User-agent: *\nDisallow: /*?", "/x?y", false},
      {"User-agent: *\nDisallow: /*?", "/x", true},
      {"User-agent: *\nDisallow: /$x", "/$x", false},
      // escapes of the same octet are equal
      {"User-agent: *\nDisallow: /foo/bar/\xE3\x83\x84", "/foo/bar/%E3%83%84", false},
      {"User-agent: *\nDisallow: /%7ejoe", "/~joe", false},
      {"User-agent: *\nDisallow: /a%2fb", "/a%2Fb", false},
      {"User-agent: *\nDisallow: /a%2fb", "/a/b", true},
      {"User-agent: *\nDisallow: /", "/robots.txt", true},
  };
  for (const auto& row : table)
    expect(std::string("robots ") + row.file + " for " + row.target,
           crawl::robots::parse(row.file, "test-bot").allows(row.target), row.wanted);
  expect("robots: allow_all", crawl::robots::allow_all().allows("/x"), true);
  expect("robots: disallow_all", crawl::robots::disallow_all().allows("/x"), false);
  expect("product token", std::string(crawl::product_token_of("ringlet-crawl/0.1 (+http://x)")), "ringlet-crawl");
  const std::string stars = "User-agent: *\nDisallow: /" + std::string(5000, '*') + "$a";
  expect("robots: many stars end soon", crawl::robots::parse(stars, "t").allows("/" + std::string(2000, 'b')), true);
}

std::string links_of(std::string_view page, std::size_t piece, const char* charset = "") {
  crawl::links reader(charset);
  for (std::size_t i = 0; i < page.size(); i += piece) reader.feed(page.substr(i, piece));
  reader.finish();
  std::string out = reader.base().empty() ? "" : "base=" + reader.base() + " ";
  for (const auto& each : reader.found()) out += each + " ";
  return out;
}

void links_in_pages() {
  const struct { const char *page, *wanted; } table[] = {
      {"<a href=x>1</a><A HREF='y?a=1&amp;b=2'>2</A>", "x y?a=1&b=2 "},
      {"<a href='#top'>1</a><a name=x>2</a><a href>3</a>", ""},
      {"<map><area href=m></map><iframe src=i></iframe>", "m i "},
      {"<link rel=stylesheet href=s><link rel='next foo' href=n><link rel='shortcut icon' href=i>", "n "},
      {"<base href='/b/'><base href='/c/'><a href=x>", "base=/b/ x "},
      {"<meta http-equiv=Refresh content=\"3; URL='r.html'\">", "r.html "},
      {"<!-- <a href=no> --><script>'<a href=no>'</script><a href=yes>", "yes "},
      {"<p><a href=x <b><i></p></b><table><a href=\"y\"></i><td></table", "x y "},
      {"<a href='%20 x\ty '>", "%20 x\ty  "},
      {"", ""},
  };
  for (const auto& row : table)
    for (std::size_t piece : {1000, 7, 1})
      expect("links " + std::to_string(piece) + " " + row.page, links_of(row.page, piece), row.wanted);
  for (std::size_t piece : {1000, 7, 1}) {
    expect("links: the header's utf-8", links_of("<p>\xc3\xa9<a href=\xc3\xa9>", piece, "utf-8"), "\xc3\xa9 ");
    expect("links: the header's latin-1", links_of("<p>\xe9<a href=\xe9>", piece, "iso-8859-1"), "\xc3\xa9 ");
    expect("links: the page's utf-8", links_of("<meta charset=utf-8><p><a href=\xc3\xa9>", piece), "\xc3\xa9 ");
    expect("links: a charset nobody knows", links_of("<p><a href=x>", piece, "x-none"), "x ");
  }
}

void files_stay_below_their_directory() {
  std::string directory = "/tmp/crawl-store-XXXXXX";
  if (!mkdtemp(directory.data())) return expect("mkdtemp", false, true);
  const crawl::store files(directory);
  const struct { const char *from, *wanted; } table[] = {
      {"http://a/", "/index.html"},
      {"http://a/x/y.html", "/x/y.html"},
      {"http://a/x/", "/x/index.html"},
      {"http://a/x/..%2f..%2fy", "/x/..%2F..%2Fy"},
      {"http://a/x?y/z", "/x?y%2Fz"},
      {"http://a/f", "/f"},
      {"http://a/f/g", "/f%2Fg"},
  };
  for (const auto& row : table) {
    std::string error;
    expect(std::string("save ") + row.from, files.save(*crawl::parse_url(row.from), "body", error), directory + row.wanted);
  }
  std::filesystem::remove_all(directory);
}

void small_things() {
  expect("json string", crawl::json_string("a\"b\\c\n\x01\xff"), "\"a\\\"b\\\\c\\u000a\\u0001\\u00ff\"");
  crawl::fnv1a hash;
  hash.add("foobar");
  expect("fnv1a of foobar", std::to_string(hash.value()), std::to_string(0x85944171f73967e8u));
}

const struct {
  const char* name;
  void (*run)();
} cases[] = {
    {"crawl: references mean what RFC 3986 says", references_of_the_rfc},
    {"crawl: two spellings of a URL become one", urls_are_normalised},
    {"crawl: robots.txt means what RFC 9309 says", robots_rules},
    {"crawl: links are found wherever the pieces are cut", links_in_pages},
    {"crawl: saved files stay below their directory", files_stay_below_their_directory},
    {"crawl: JSON strings and hashes", small_things},
};

}  // namespace

// The lines that all our tests print; --test-case=*WORD* chooses, as with the others.
int main(int argc, char** argv) {
  std::string word;
  for (int i = 1; i < argc; ++i)
    if (const std::string_view argument = argv[i]; argument.starts_with("--test-case=*") && argument.ends_with('*'))
      word = argument.substr(13, argument.size() - 14);
  int passed = 0, failed = 0;
  for (const auto& each : cases) {
    if (std::string_view(each.name).find(word) == std::string_view::npos) continue;
    failures = 0;
    each.run();
    std::printf("%s %s\n", failures ? "FAIL" : "PASS", each.name);
    ++(failures ? failed : passed);
  }
  std::printf("RESULT passed=%d failed=%d skipped=0\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
