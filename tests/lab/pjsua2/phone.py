"""A PJSIP phone without a screen: commands on standard input, what happens on standard output.

usage: phone.py ADDRESS USER DOMAIN PROXY-URI PASSWORD TRANSPORT EXPIRES CALLS own|seen TONE.wav HEARD.wav

It plays TONE.wav in every call, over and over, and records what it hears into HEARD.wav; each call replaces the recording.
With PHONE_ICE in the environment it speaks ICE, with PHONE_SRTP nothing but SRTP, with PHONE_VAD=0 it sends packets while it is silent too, with PHONE_TURN=ADDRESS by a STUN and TURN server. Everything runs in one thread: the library's callbacks must not come in others (pjsua2's Python binding).
"""

import os
import select
import sys

import pjsua2 as pj

(address, user, domain, proxy, password, transport, expires, most, contact, tone, heard) = sys.argv[1:]
calls = {}
alive = True


def say(text):
    print(f"\n@ {text}", flush=True)


class Call(pj.Call):
    def __init__(self, account, call_id=pj.PJSUA_INVALID_ID):
        super().__init__(account, call_id)
        self.player = self.recorder = None
        calls[id(self)] = self

    def onCallState(self, _):
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_EARLY and info.role == pj.PJSIP_ROLE_UAC:
            say("ringing")
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            say("established")
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            say(f"ended {info.lastStatusCode} {info.lastReason}")
            self.player = self.recorder = None
            calls.pop(id(self), None)

    def onCallMediaState(self, _):
        # What a callback raises, the library's binding swallows.
        try:
            self.connect()
        except pj.Error as error:
            say(f"failed: {error.info(True)}")

    def onCallTransferStatus(self, status):
        # As a phone does whose user has put down the receiver.
        if status.finalNotify and status.statusCode // 100 == 2:
            self.hangup(pj.CallOpParam(True))

    def onCallTransferRequest(self, wanted):
        # Of a call that the library makes for itself nobody would connect the sound, and the next re-INVITE hangs in it.
        wanted.newCall = Call(account)

    def connect(self):
        # The vector belongs to the info: that must outlive it.
        info = self.getInfo()
        media = info.media[0]
        if media.status not in (pj.PJSUA_CALL_MEDIA_ACTIVE, pj.PJSUA_CALL_MEDIA_REMOTE_HOLD):
            return
        audio = self.getAudioMedia(0)
        if self.player is None:
            self.player = pj.AudioMediaPlayer()
            self.player.createPlayer(tone)
            self.recorder = pj.AudioMediaRecorder()
            self.recorder.createRecorder(heard)
        self.player.startTransmit(audio)
        audio.startTransmit(self.recorder)


class Account(pj.Account):
    def onRegState(self, change):
        info = self.getInfo()
        say(f"registered {change.expiration}" if info.regIsActive else f"unregistered {change.code}")

    def onIncomingCall(self, incoming):
        call = Call(self, incoming.callId)
        say("incoming")
        if len(calls) > int(most):
            finish(call, 486)
        else:
            finish(call, 180, call.answer)


def finish(call, status, act=None):
    what = pj.CallOpParam()
    what.statusCode = status
    (act or call.hangup)(what)


def latest():
    return list(calls.values())[-1]


def command(words):
    global alive
    match words:
        case ["dial", uri]:
            Call(account).makeCall(uri, pj.CallOpParam(True))
        case ["answer"]:
            finish(latest(), 200, latest().answer)
        case ["refuse", status]:
            finish(latest(), int(status))
        case ["hangup"]:
            latest().hangup(pj.CallOpParam(True))
        case ["hold"]:
            latest().setHold(pj.CallOpParam(True))
        case ["resume"]:
            what = pj.CallOpParam(True)
            what.opt.flag = pj.PJSUA_CALL_UNHOLD
            latest().reinvite(what)
        case ["press", digit]:
            latest().dialDtmf(digit)
        case ["transfer", uri]:
            latest().xfer(uri, pj.CallOpParam(True))
        case ["join"]:
            first, second = list(calls.values())[:2]
            first.xferReplaces(second, pj.CallOpParam(True))
        case ["quit"]:
            alive = False
        case _:
            say(f"no such command: {words}")


endpoint = pj.Endpoint()
endpoint.libCreate()
settings = pj.EpConfig()
settings.uaConfig.userAgent = "pjsua2-phone"
settings.uaConfig.threadCnt = 0
settings.uaConfig.mainThreadOnly = True
settings.logConfig.level = settings.logConfig.consoleLevel = 5
settings.medConfig.noVad = os.environ.get("PHONE_VAD") == "0"
if server := os.environ.get("PHONE_TURN"):
    settings.uaConfig.stunServer.append(server)
endpoint.libInit(settings)
kind = {"udp": pj.PJSIP_TRANSPORT_UDP, "tcp": pj.PJSIP_TRANSPORT_TCP, "tls": pj.PJSIP_TRANSPORT_TLS}[transport]
where = pj.TransportConfig()
where.port = 5060
where.boundAddress = address
endpoint.transportCreate(kind, where)
endpoint.libStart()
endpoint.audDevManager().setNullDev()
for codec in endpoint.codecEnum2():
    endpoint.codecSetPriority(codec.codecId, 255 if codec.codecId.startswith("PCM") else 0)

identity = pj.AccountConfig()
identity.idUri = f"sip:{user}@{domain}"
identity.sipConfig.proxies.append(f"{proxy};lr")
identity.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
identity.mediaConfig.transportConfig.boundAddress = address
if contact == "own":
    identity.natConfig.contactRewriteUse = 0
    identity.natConfig.viaRewriteUse = 0
identity.natConfig.iceEnabled = "PHONE_ICE" in os.environ
if "PHONE_SRTP" in os.environ:
    identity.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_MANDATORY
    # Keys over any transport.
    identity.mediaConfig.srtpSecureSignaling = 0
if server := os.environ.get("PHONE_TURN"):
    identity.natConfig.turnEnabled = True
    # Without a port the library takes 3479.
    identity.natConfig.turnServer = f"{server}:3478"
    identity.natConfig.turnConnType = pj.PJ_TURN_TP_UDP
    identity.natConfig.turnUserName = identity.natConfig.turnPassword = "lab"
# An answer with two codecs is no reason for another offer.
identity.mediaConfig.lockCodecEnabled = False
if int(expires):
    identity.regConfig.registrarUri = f"sip:{domain};transport={transport}"
    identity.regConfig.timeoutSec = int(expires)
    # Bit 1: by the account's proxy, or a domain that is only a name would be looked up.
    identity.regConfig.proxyUse = 2
account = Account()
account.create(identity)
say("ready")
pending = b""
while alive:
    endpoint.libHandleEvents(10)
    while select.select([sys.stdin], [], [], 0)[0]:
        more = sys.stdin.buffer.raw.read(4096)
        if not more:
            alive = False
            break
        *lines, pending = (pending + more).split(b"\n")
        for line in lines:
            try:
                command(line.decode().split())
            except (pj.Error, IndexError) as error:
                say(f"failed: {line!r} {error}")
calls.clear()
account.shutdown()
endpoint.libDestroy()
