"""Both ends of many calls in one thread: enough of SIP to set calls up through a product and hold them."""

import re
import select
import time


def header(message, name):
    return re.search(rf"(?im)^{name}\s*:\s*(.*?)\r$", message).group(1)


def headers(message, *names):
    """All lines with these names, as they came."""
    return re.findall(rf"(?im)^(?:{'|'.join(names)})\s*:.*?\r\n", message)


def description(address, port):
    return (f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n")


def with_body(head, body=""):
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return f"{head}{kind}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Calls:
    """`caller` and `answerer` are bound UDP sockets; the product listens at `product` towards the caller."""

    def __init__(self, caller, answerer, product):
        self.caller, self.answerer, self.product = caller, answerer, product
        self.number = 0

    def set_up(self, caller_port, answerer_port):
        """One call with media between these ports of the two ends: the product's RTP address towards the caller."""
        self.number += 1
        here, there = self.caller.getsockname(), self.answerer.getsockname()
        tag, branch = f"c{self.number}", f"z9hG4bKbench{self.number}"
        own = (f"From: <sip:load@{here[0]}>;tag={tag}\r\nCall-ID: bench-{self.number}@{here[0]}\r\nMax-Forwards: 70\r\n"
               f"Contact: <sip:load@{here[0]}:{here[1]}>\r\n")
        invite = with_body(f"INVITE sip:load@{self.product[0]}:{self.product[1]} SIP/2.0\r\nVia: SIP/2.0/UDP {here[0]}:{here[1]};branch={branch}\r\n"
                           f"{own}To: <sip:load@{self.product[0]}>\r\nCSeq: 1 INVITE\r\n", description(here[0], caller_port))
        self.caller.sendto(invite, self.product)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for socket in select.select([self.caller, self.answerer], [], [], 1)[0]:
                data, source = socket.recvfrom(65535)
                message = data.decode()
                if socket is self.answerer and message.startswith("INVITE"):
                    copied = "".join(headers(message, "Via", "From", "Call-ID", "CSeq", "Record-Route"))
                    self.answerer.sendto(with_body(
                        f"SIP/2.0 200 OK\r\n{copied}To: {header(message, 'To')};tag=a{self.number}\r\nContact: <sip:load@{there[0]}:{there[1]}>\r\n",
                        description(there[0], answerer_port)), source)
                elif socket is self.caller and message.startswith("SIP/2.0 ") and f"bench-{self.number}@" in message:
                    status = int(message.split()[1])
                    if status >= 300:
                        raise RuntimeError(f"call {self.number} was refused: {message.splitlines()[0]}")
                    if status >= 200:
                        self.acknowledge(message, own, branch)
                        address = re.search(r"(?m)^c=IN IP4 (\S+)", message).group(1)
                        return address, int(re.search(r"(?m)^m=audio (\d+)", message).group(1))
        raise RuntimeError(f"call {self.number} was not answered in 5 s")

    def acknowledge(self, answer, own, branch):
        here = self.caller.getsockname()
        target = re.search(r"<(.*?)>", header(answer, "Contact")).group(1)
        routes = "".join(f"Route: {line.split(':', 1)[1].strip()}\r\n" for line in reversed(headers(answer, "Record-Route")))
        self.caller.sendto(with_body(f"ACK {target} SIP/2.0\r\nVia: SIP/2.0/UDP {here[0]}:{here[1]};branch={branch}a\r\n{own}{routes}"
                                     f"To: {header(answer, 'To')}\r\nCSeq: 1 ACK\r\n"), self.product)
