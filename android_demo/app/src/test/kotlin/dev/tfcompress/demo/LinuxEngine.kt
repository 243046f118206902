package dev.tfcompress.demo

import dev.tfcompress.demo.runtime.Accelerator
import dev.tfcompress.demo.runtime.Engine
import dev.tfcompress.demo.runtime.EngineException
import dev.tfcompress.demo.runtime.Session
import dev.tfcompress.demo.runtime.Settings
import dev.tfcompress.demo.tensor.ElementType
import dev.tfcompress.demo.tensor.Grid
import dev.tfcompress.demo.tensor.TensorInfo
import org.bytedeco.javacpp.BytePointer
import org.bytedeco.javacpp.Pointer
import org.bytedeco.tensorflowlite.TfLiteInterpreter
import org.bytedeco.tensorflowlite.TfLiteModel
import org.bytedeco.tensorflowlite.TfLiteSignatureRunner
import org.bytedeco.tensorflowlite.TfLiteTensor
import org.bytedeco.tensorflowlite.global.tensorflowlite.*
import java.nio.ByteBuffer

/** TensorFlow Lite for Linux: the runtime of the phone behind the same interface, without its delegates. */
class LinuxEngine : Engine {
    /** Threads that the runtime was called on. */
    val threads = LinkedHashSet<String>()

    override val runtime = "TensorFlow Lite"
    override val version: String get() = TfLiteVersion().string

    override fun missing(accelerator: Accelerator): String? {
        threads += Thread.currentThread().name
        return if (accelerator == Accelerator.XNNPACK) null else "This machine has no ${accelerator.name} for the runtime."
    }

    override fun open(model: ByteBuffer, settings: Settings): Session {
        threads += Thread.currentThread().name
        missing(settings.accelerator)?.let { throw EngineException(it) }
        val made = TfLiteModelCreate(Pointer(model), model.remaining().toLong()) ?: throw EngineException("this is no model")
        val options = TfLiteInterpreterOptionsCreate()
        TfLiteInterpreterOptionsSetNumThreads(options, settings.threads)
        val interpreter = TfLiteInterpreterCreate(made, options)
        TfLiteInterpreterOptionsDelete(options)
        if (interpreter == null || interpreter.isNull) {
            TfLiteModelDelete(made)
            throw EngineException("the runtime does not know an operation of this model")
        }
        return LinuxSession(made, interpreter, settings.signature, model)
    }
}

private class LinuxSession(
    private val model: TfLiteModel, private val interpreter: TfLiteInterpreter, signature: String, private val kept: ByteBuffer,
) : Session {
    private val runner: TfLiteSignatureRunner? =
        if (signature.isEmpty()) null else TfLiteInterpreterGetSignatureRunner(interpreter, signature)
    private val given = LinkedHashMap<String, TfLiteTensor>()
    private val got = LinkedHashMap<String, TfLiteTensor>()
    override val inputs: List<TensorInfo>
    override val outputs: List<TensorInfo>
    override val delegate = "XNNPACK"

    init {
        if (runner != null) {
            ok(TfLiteSignatureRunnerAllocateTensors(runner))
            for (i in 0 until TfLiteSignatureRunnerGetInputCount(runner).toInt()) {
                val name = TfLiteSignatureRunnerGetInputName(runner, i).string
                given[name] = TfLiteSignatureRunnerGetInputTensor(runner, name)
            }
            for (i in 0 until TfLiteSignatureRunnerGetOutputCount(runner).toInt()) {
                val name = TfLiteSignatureRunnerGetOutputName(runner, i).string
                got[name] = TfLiteSignatureRunnerGetOutputTensor(runner, name)
            }
        } else {
            ok(TfLiteInterpreterAllocateTensors(interpreter))
            for (i in 0 until TfLiteInterpreterGetInputTensorCount(interpreter)) {
                TfLiteInterpreterGetInputTensor(interpreter, i).let { given[TfLiteTensorName(it).string] = it }
            }
            for (i in 0 until TfLiteInterpreterGetOutputTensorCount(interpreter)) {
                TfLiteInterpreterGetOutputTensor(interpreter, i).let { got[TfLiteTensorName(it).string] = it }
            }
        }
        inputs = given.map { (name, tensor) -> info(name, tensor) }
        outputs = got.map { (name, tensor) -> info(name, tensor) }
    }

    override fun run(inputs: Map<String, ByteBuffer>): Map<String, ByteBuffer> {
        for ((name, tensor) in given) {
            val values = inputs.getValue(name).also { it.rewind() }
            ok(TfLiteTensorCopyFromBuffer(tensor, BytePointer(values), values.remaining().toLong()))
        }
        ok(if (runner != null) TfLiteSignatureRunnerInvoke(runner) else TfLiteInterpreterInvoke(interpreter))
        return outputs.associate { info ->
            val into = info.buffer()
            ok(TfLiteTensorCopyToBuffer(got.getValue(info.name), BytePointer(into), info.bytes.toLong()))
            info.name to into
        }
    }

    override fun close() {
        runner?.let(::TfLiteSignatureRunnerDelete)
        TfLiteInterpreterDelete(interpreter)
        TfLiteModelDelete(model)
        kept.rewind()
    }

    private fun ok(status: Int) {
        if (status != 0) throw EngineException("the runtime failed with status $status")
    }

    private fun info(name: String, tensor: TfLiteTensor): TensorInfo {
        val type = when (val number = TfLiteTensorType(tensor)) {
            kTfLiteFloat32 -> ElementType.FLOAT32
            kTfLiteInt8 -> ElementType.INT8
            kTfLiteUInt8 -> ElementType.UINT8
            kTfLiteInt16 -> ElementType.INT16
            kTfLiteInt32 -> ElementType.INT32
            kTfLiteInt64 -> ElementType.INT64
            kTfLiteBool -> ElementType.BOOL
            else -> throw EngineException("'$name' is of type $number. This app knows ${ElementType.known}.")
        }
        val shape = List(TfLiteTensorNumDims(tensor)) { TfLiteTensorDim(tensor, it) }
        val quantization = TfLiteTensorQuantizationParams(tensor)
        val grid = if (quantization.scale() > 0) Grid(quantization.scale(), quantization.zero_point()) else null
        return TensorInfo(name, type, shape, grid)
    }
}
