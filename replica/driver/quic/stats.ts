/**
 * What the transport counts. Every packet, datagram or stream that is given up appears here once.
 */
export interface TransportStats {
  packetsSent: number;
  packetsReceived: number;
  bytesSent: number;
  bytesReceived: number;
  /** Not QUIC, or cut short: dropped unread. */
  packetsMalformed: number;
  /** For a connection we do not have. */
  packetsUnknown: number;
  /** Refused by the QUIC library, e.g. a packet that breaks the protocol. */
  packetsRefused: number;
  /** Dropped by the fault injection. */
  packetsLostOnPurpose: number;
  versionNegotiationsSent: number;
  statelessResetsSent: number;
  /** Replies to unknown packets that were held back by the rate limit. */
  statelessRepliesHeldBack: number;
  /** Errors reported by the UDP socket, e.g. an unreachable network. */
  socketErrors: number;
  datagramsSent: number;
  datagramsReceived: number;
  datagramBytesSent: number;
  datagramBytesReceived: number;
  /** Not sent: no connection, or dialling held back, or too many waiting. */
  datagramsDropped: number;
  /** Not sent: larger than the path carries. */
  datagramsTooLarge: number;
  uniStreamsSent: number;
  uniStreamsFailed: number;
  uniStreamsAccepted: number;
  /** Of these, streams that came whole. */
  uniStreamsReceived: number;
  /** Bytes of frames on streams handed over, with their lengths. */
  uniBytesSent: number;
  /** Bytes of frames received. */
  uniBytesReceived: number;
  /** Incoming streams given up: reset by the peer, cut short, or over a limit. */
  streamsBroken: number;
  biStreamsOpened: number;
  biStreamsAccepted: number;
  dials: number;
  dialsFailed: number;
  handshakesAccepted: number;
  handshakesFailed: number;
  /** Connections not accepted because there are too many. */
  connectionsRefused: number;
  /** Outgoing connections that were up, and broke or were forgotten. */
  connectionsLost: number;
}

/** Counters at zero. */
export function createStats(): TransportStats {
  return {
    packetsSent: 0,
    packetsReceived: 0,
    bytesSent: 0,
    bytesReceived: 0,
    packetsMalformed: 0,
    packetsUnknown: 0,
    packetsRefused: 0,
    packetsLostOnPurpose: 0,
    versionNegotiationsSent: 0,
    statelessResetsSent: 0,
    statelessRepliesHeldBack: 0,
    socketErrors: 0,
    datagramsSent: 0,
    datagramsReceived: 0,
    datagramBytesSent: 0,
    datagramBytesReceived: 0,
    datagramsDropped: 0,
    datagramsTooLarge: 0,
    uniStreamsSent: 0,
    uniStreamsFailed: 0,
    uniStreamsAccepted: 0,
    uniStreamsReceived: 0,
    uniBytesSent: 0,
    uniBytesReceived: 0,
    streamsBroken: 0,
    biStreamsOpened: 0,
    biStreamsAccepted: 0,
    dials: 0,
    dialsFailed: 0,
    handshakesAccepted: 0,
    handshakesFailed: 0,
    connectionsRefused: 0,
    connectionsLost: 0,
  };
}
