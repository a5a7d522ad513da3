# A WebSocket server that sends back what comes: the backend of the suite. Says its port first. Python 2.7, as the suite.
import sys

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload, isBinary):
        self.sendMessage(payload, isBinary)


factory = WebSocketServerFactory()
factory.protocol = Echo
# What a fuzzing client sends on purpose must end with the answer that the protocol has for it, and not with a time-out.
factory.setProtocolOptions(failByDrop=False)
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
print(port.getHost().port)
sys.stdout.flush()
reactor.run()
