/**
 * The JavaScript stack of another thread, taken while it is stuck.
 *
 * An inspector session to the main thread interrupts JavaScript wherever it runs, also in an
 * endless loop and in `Atomics.wait`. Worker threads are reached through the main thread's
 * `NodeWorker` domain, which is served by an interrupt as well. Code blocked in a system call or
 * in a native library cannot be interrupted: after the time limit that is the finding. A thread
 * that the kernel calls running at the limit may merely lack CPU, so it gets five times as long.
 *
 * Must run in a thread of its own, never in the one that is captured: a thread that pauses itself
 * waits for ever.
 */
import { type Debugger, Session } from "node:inspector";
import { errorText } from "#base/errors.ts";
import type { StackEvidence, StackFrame, ThreadFacts } from "../types.ts";
import { threadFacts } from "./proc-facts.ts";

/** Which thread, and how long at most. */
export interface CaptureRequest {
  /** Node's thread number; 0 is the main thread. */
  readonly threadId: number;
  /** The kernel's thread number; 0 = unknown. */
  readonly nativeThreadId: number;
  /** For a thread that sleeps; five times that for one that runs. */
  readonly limitMs: number;
}

/** Captures the stack; never rejects. The thread goes on afterwards if it can. */
export function captureStack(request: CaptureRequest): Promise<StackEvidence> {
  return new Promise((resolve) => {
    const session = new Session();
    let limit = setTimeout(() => {
      if (factsOf(request.nativeThreadId)?.state !== "R") return resolve(nativeEvidence(request));
      const restMs = request.limitMs * (RUNNING_FACTOR - 1);
      limit = setTimeout(() => resolve(nativeEvidence(request)), restMs);
    }, request.limitMs);
    const finish = (frames: readonly StackFrame[]): void => {
      clearTimeout(limit);
      resolve({ kind: "javascript", frames });
    };
    try {
      session.connectToMainThread();
      if (request.threadId === 0) pauseMain(session, finish);
      else pauseWorker(session, request.threadId, finish);
    } catch (error) {
      clearTimeout(limit);
      const { nativeThreadId } = request;
      const reason = `no inspector session: ${errorText(error)}`;
      resolve({ kind: "native", reason, thread: factsOf(nativeThreadId) });
    }
  });
}

function pauseMain(session: Session, finish: (frames: readonly StackFrame[]) => void): void {
  const urlByScript = new Map<string, string>();
  session.on("Debugger.scriptParsed", ({ params }) => {
    urlByScript.set(params.scriptId, params.url);
  });
  // Also when it comes after the limit: the thread must not stay paused.
  session.on("Debugger.paused", ({ params }) => {
    finish(framesOf(params.callFrames, urlByScript));
    session.post("Debugger.resume", () => session.disconnect());
  });
  session.post("Debugger.enable");
  session.post("Debugger.pause");
}

function pauseWorker(
  session: Session,
  threadId: number,
  finish: (frames: readonly StackFrame[]) => void,
): void {
  const urlByScript = new Map<string, string>();
  session.on("NodeWorker.attachedToWorker", ({ params }) => {
    // The title is all that names the thread. Any other one, above all this one, is left alone.
    if (!params.workerInfo.title.startsWith(`[worker ${threadId}]`)) return;
    const { sessionId } = params;
    const send = (id: number, method: string): void => {
      const message = JSON.stringify({ id, method });
      session.post("NodeWorker.sendMessageToWorker", { sessionId, message });
    };
    session.on("NodeWorker.receivedMessageFromWorker", (event) => {
      if (event.params.sessionId !== sessionId) return;
      const message = JSON.parse(event.params.message) as WorkerMessage;
      if (message.method === "Debugger.scriptParsed") {
        urlByScript.set(message.params.scriptId, message.params.url);
      } else if (message.method === "Debugger.paused") {
        finish(framesOf(message.params.callFrames, urlByScript));
        send(3, "Debugger.resume");
        session.post("NodeWorker.disable", () => session.disconnect());
      }
    });
    send(1, "Debugger.enable");
    send(2, "Debugger.pause");
  });
  session.post("NodeWorker.enable", { waitForDebuggerOnStart: false });
}

/** The two events of a worker's inspector that matter here. */
type WorkerMessage =
  | {
      readonly method: "Debugger.scriptParsed";
      readonly params: Debugger.ScriptParsedEventDataType;
    }
  | { readonly method: "Debugger.paused"; readonly params: Debugger.PausedEventDataType };

function framesOf(
  callFrames: readonly Debugger.CallFrame[],
  urlByScript: ReadonlyMap<string, string>,
): readonly StackFrame[] {
  return callFrames.slice(0, FRAMES_MAX).map((frame) => ({
    function: frame.functionName === "" ? "(anonymous)" : frame.functionName,
    url: urlByScript.get(frame.location.scriptId) ?? frame.url,
    line: frame.location.lineNumber + 1,
    column: (frame.location.columnNumber ?? 0) + 1,
  }));
}

function nativeEvidence({ nativeThreadId }: CaptureRequest): StackEvidence {
  const thread = factsOf(nativeThreadId);
  const where =
    thread?.state === "R"
      ? "it runs native code"
      : `it waits in the kernel${thread?.waitChannel ? ` (${thread.waitChannel})` : ""}`;
  const reason = `the thread did not stop for the inspector: ${where}`;
  return { kind: "native", reason, thread };
}

function factsOf(nativeThreadId: number): ThreadFacts | null {
  return nativeThreadId === 0 ? null : threadFacts(process.pid, nativeThreadId);
}

/** On a box with five runnable threads per core a running one gets a fifth of the time. */
export const RUNNING_FACTOR = 5;
/** Deeper frames are the event loop's, or a recursion's. */
const FRAMES_MAX = 50;
