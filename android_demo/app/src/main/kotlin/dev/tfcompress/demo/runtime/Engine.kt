package dev.tfcompress.demo.runtime

import dev.tfcompress.demo.tensor.TensorInfo
import java.io.Closeable
import java.nio.ByteBuffer

/** What can do the work; [key] is how the benchmark harness calls it. */
enum class Accelerator(val key: String) {
    XNNPACK("xnnpack"),
    CPU("cpu"),
    GPU("gpu"),
    NNAPI("nnapi");

    companion object {
        fun of(key: String): Accelerator? = entries.find { it.key == key }
    }
}

/** Why a model cannot be opened or run, in words for people. */
class EngineException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** How a model is opened; [signature] "" stands for its first subgraph. */
data class Settings(val accelerator: Accelerator, val threads: Int, val signature: String = "")

/** An opened model. Not for several threads at once. */
interface Session : Closeable {
    val inputs: List<TensorInfo>
    val outputs: List<TensorInfo>

    /** What does the work, in words. */
    val delegate: String

    /**
     * One inference; values are raw, in the types of the model.
     *
     * @throws EngineException when the runtime fails.
     */
    fun run(inputs: Map<String, ByteBuffer>): Map<String, ByteBuffer>
}

/**
 * A runtime: on a phone the TFLite or LiteRT library of the app, in tests on the JVM the same runtime for Linux.
 */
interface Engine {
    val runtime: String
    val version: String

    /** Null where the accelerator can be used; else why not, in words for people. */
    fun missing(accelerator: Accelerator): String?

    /**
     * @param model direct memory that stays as it is while the session is open.
     * @throws EngineException when the runtime does not take the model.
     */
    fun open(model: ByteBuffer, settings: Settings): Session
}
