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
import org.bytedeco.javacpp.Loader
import org.bytedeco.tensorflowlite.BuiltinOpResolverWithXNNPACK
import org.bytedeco.tensorflowlite.BuiltinOpResolverWithoutDefaultDelegates
import org.bytedeco.tensorflowlite.FlatBufferModel
import org.bytedeco.tensorflowlite.Interpreter
import org.bytedeco.tensorflowlite.InterpreterBuilder
import org.bytedeco.tensorflowlite.StringIntMap
import org.bytedeco.tensorflowlite.TfLiteTensor
import org.bytedeco.tensorflowlite.global.tensorflowlite.*
import java.nio.ByteBuffer

/** TensorFlow Lite for Linux: the runtime of the phone behind the same interface, on the CPU. */
class LinuxEngine : Engine {
    /** Threads that the runtime was called on. */
    val threads = LinkedHashSet<String>()

    /** Models that were opened. */
    var opened = 0

    init {
        Loader.load(org.bytedeco.tensorflowlite.global.tensorflowlite::class.java)
    }

    override val runtime = "TensorFlow Lite"
    override val version: String get() = TfLiteVersion().string

    override fun missing(accelerator: Accelerator): String? {
        threads += Thread.currentThread().name
        val here = accelerator == Accelerator.XNNPACK || accelerator == Accelerator.CPU
        return if (here) null else "This machine has no ${accelerator.name} for the runtime."
    }

    override fun open(model: ByteBuffer, settings: Settings): Session {
        threads += Thread.currentThread().name
        missing(settings.accelerator)?.let { throw EngineException(it) }
        opened++
        val xnnpack = settings.accelerator == Accelerator.XNNPACK
        val resolver = if (xnnpack) BuiltinOpResolverWithXNNPACK() else BuiltinOpResolverWithoutDefaultDelegates()
        val made = FlatBufferModel.BuildFromBuffer(BytePointer(model), model.remaining().toLong(), FlatBufferModel.GetDefaultErrorReporter())
        if (made == null || made.isNull) throw EngineException("this is no model")
        val interpreter = Interpreter(null as org.bytedeco.javacpp.Pointer?)
        val built = InterpreterBuilder(made, resolver).apply(interpreter, settings.threads)
        if (built != 0 || interpreter.isNull) throw EngineException("the runtime does not know an operation of this model")
        return LinuxSession(interpreter, if (xnnpack) "XNNPACK" else "CPU kernels of the runtime", settings.signature, listOf(model, made, resolver))
    }
}

/** @property kept what the interpreter points to. */
private class LinuxSession(
    private val interpreter: Interpreter, override val delegate: String, signature: String, private var kept: List<Any>,
) : Session {
    private val given: Map<String, TfLiteTensor>
    private val got: Map<String, TfLiteTensor>
    override val inputs: List<TensorInfo>
    override val outputs: List<TensorInfo>

    init {
        ok(interpreter.AllocateTensors())
        if (signature.isEmpty()) {
            given = tensors(interpreter.inputs())
            got = tensors(interpreter.outputs())
        } else {
            given = names(interpreter.signature_inputs(signature)).associateWith { interpreter.input_tensor_by_signature(it, signature) }
            got = names(interpreter.signature_outputs(signature)).associateWith { interpreter.output_tensor_by_signature(it, signature) }
        }
        inputs = given.map { (name, tensor) -> info(name, tensor) }
        outputs = got.map { (name, tensor) -> info(name, tensor) }
    }

    override fun run(inputs: Map<String, ByteBuffer>): Map<String, ByteBuffer> {
        for ((name, tensor) in given) {
            val values = inputs.getValue(name).also { it.rewind() }
            ok(TfLiteTensorCopyFromBuffer(tensor, BytePointer(values), values.remaining().toLong()))
        }
        ok(interpreter.Invoke())
        return outputs.associate { info ->
            val into = info.buffer()
            ok(TfLiteTensorCopyToBuffer(got.getValue(info.name), BytePointer(into), info.bytes.toLong()))
            info.name to into
        }
    }

    override fun close() {
        interpreter.deallocate()
        kept = emptyList()
    }

    private fun tensors(indices: org.bytedeco.javacpp.IntPointer): Map<String, TfLiteTensor> =
        (0 until indices.limit()).map { interpreter.tensor(indices.get(it)) }.associateBy { TfLiteTensorName(it).string }

    private fun names(map: StringIntMap): List<String> = buildList {
        val at = map.begin()
        while (!at.equals(map.end())) {
            add(at.first())
            at.increment()
        }
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
