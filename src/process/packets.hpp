#pragma once
// One message, one packet of a SOCK_SEQPACKET pair of sockets: the transport of pipes and queues.
//
// A packet is a word of its kind and then the message, or, if that is too big for a packet, its first part and a memfd with the
// rest. Either way the kernel moves it in one step: it is there or it is not, and one reader has it. Nothing is
// shared that a process could leave locked or half done.

#include <string>
#include <string_view>

#include <ringlet/deadline.hpp>

namespace ringlet::process_detail {

struct packet_ends {
  int first, second;
};
packet_ends make_packets();

enum class sent { yes, late, nobody_reads };
sent send_packet(int fd, std::string_view message, deadline until, const char* what);

struct received {
  enum class kind { message, late, ended } how = kind::late;
  bool peer_left_unread = false;  // ended: what we sent last was never read
};
// Into the string, whose memory is used again; it is left as it was if no message came.
received receive_packet(int fd, std::string& message, deadline until, const char* what);

}  // namespace ringlet::process_detail
